"""How much does each node of a context write into the others?

With attention patterns and norm scales as constants, and the transcoders' linear skips in the place of the MLPs, a
model is linear, and what a source adds to a latent or a logit is a product of matrices. circuit-tracer finds it by
automatic differentiation of a batch of equal forward passes; here the constants of one pass are kept, and each target
is followed back through the blocks below it alone. The numbers are the same.

Source: docs/methods.md §10; circuit-tracer 0.5.0, attribution/context_transformerlens.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from circuit_tracer.attribution.context_transformerlens import AttributionContext
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.graphs.replacement import Replacement

ROWS_AT_ONCE = 32
"""Targets followed back together: more do not fit the caches of a processor."""


@dataclass(frozen=True)
class FrozenBlock:
    """The constants of a block in one context. A norm is what it multiplies each unit by at each position."""

    pattern: Float[Tensor, "kv_head query_of_group key"]
    """Attention: for each head of keys and values, the queries of its heads one after the other."""
    by_query: Float[Tensor, "kv_head group query key"]
    """The same numbers."""
    output: Float[Tensor, "unit head_unit"]
    """What heads write, transposed."""
    value: Float[Tensor, "kv_head_unit unit"]
    """What they read, transposed."""
    attention_norm: Float[Tensor, "position unit"]
    mlp_norm: Float[Tensor, "position unit"]
    skip: Float[Tensor, "output_unit input_unit"]

    def before_mlp(self, after: Float[Tensor, "row position unit"]) -> None:
        """Turns gradients of the stream after the block's MLP into those before it, in place."""
        after.addcmul_(after @ self.skip, self.mlp_norm)

    def before_attention(self, after: Float[Tensor, "row position unit"]) -> None:
        """Turns gradients of the stream after the block's attention into those before it, in place."""
        rows, positions, _ = after.shape
        heads, group, _, _ = self.by_query.shape
        written = (after @ self.output).view(rows, positions, heads, group, -1)
        written = written.permute(2, 3, 1, 0, 4).reshape(heads, group * positions, -1)
        read = (self.pattern.mT @ written).view(heads, positions, rows, -1)  # (kv_head, key, row, unit of head)
        read = read.permute(2, 1, 0, 3).reshape(rows, positions, -1)
        after.addcmul_(read @ self.value, self.attention_norm)

    def before_attention_of_one(
        self, after: Float[Tensor, "row unit"], at: Int[Tensor, " row"]
    ) -> Float[Tensor, "row position unit"]:
        """As `before_attention`, of gradients that are 0 but at one position each."""
        rows = len(at)
        heads, group, positions, _ = self.by_query.shape
        written = (after @ self.output).view(rows, heads, group, -1)
        seen = self.by_query[:, :, at].permute(2, 0, 3, 1)  # (row, kv_head, key, group)
        read = (seen @ written).transpose(1, 2).reshape(rows, positions, -1)
        before = (read @ self.value).mul_(self.attention_norm)
        before[torch.arange(rows, device=at.device), at] += after
        return before


@dataclass(frozen=True)
class Latents:
    """The active latents of one block, in order of position and number; `first` is the column of the first."""

    first: int
    start: int
    """The earliest position that has one."""
    written: Float[Tensor, "position unit slot"]
    """From `start` on, what each writes (activation times decoder row); positions with fewer are filled with zeros."""
    slots: Int[Tensor, " latent"]
    """Where each latent is among positions times slots."""


class FrozenContext:
    """A model with transcoders on the ids of one context.

    Columns of its rows: active latents (in the order of `latents`), an error for each block and position, an embedding
    for each position.
    """

    def __init__(self, model: Replacement, ids: Int[Tensor, " position"]):
        with _capturing(model) as seen:
            self.traced: AttributionContext = model.setup_attribution(ids)
        self.latents: Int[Tensor, "latent 3"] = self.traced.activation_matrix.indices().T
        """Block, position and number of each active latent."""
        self.n_blocks, self.n_positions = model.cfg.n_layers, len(ids)
        self.n_columns = len(self.latents) + (self.n_blocks + 1) * self.n_positions
        self.blocks = [_block(model, layer, seen) for layer in range(self.n_blocks)]
        self.active = [self._active(layer) for layer in range(self.n_blocks)]
        self.final_norm = model.ln_final.w / seen["ln_final.hook_scale"][0, -1]

    def _active(self, layer: int) -> Latents | None:
        columns = (self.latents[:, 0] == layer).nonzero()[:, 0]
        if not len(columns):
            return None
        first, position = int(columns[0]), self.latents[columns, 1]
        counts = torch.bincount(position, minlength=self.n_positions)
        start, width = int(position[0]), int(counts.max())
        in_turn = torch.arange(len(columns), device=position.device) - (counts.cumsum(0) - counts)[position]
        slots = (position - start) * width + in_turn
        vectors = self.traced.decoder_vecs[columns]
        written = vectors.new_zeros((self.n_positions - start) * width, vectors.shape[1])
        written[slots] = vectors
        return Latents(first, start, written.view(-1, width, vectors.shape[1]).mT.contiguous(), slots)

    def into_latents(self, chosen: Int[Tensor, " row"]) -> Float[Tensor, "row column"]:
        """What each column adds to the response of each of some latents, given by their own columns."""
        order = torch.argsort(self.latents[chosen, 0], descending=True, stable=True)
        rows = self.traced.encoder_vecs.new_empty(len(chosen), self.n_columns)
        for part in order.split(ROWS_AT_ONCE):
            layers, positions, _ = self.latents[chosen[part]].unbind(1)
            rows[part] = self._rows(layers, positions, self.traced.encoder_vecs[chosen[part]], True)
        return rows

    def into_logits(self, directions: Float[Tensor, "row unit"], skips: bool) -> Float[Tensor, "row column"]:
        """What each column adds to what some directions read of the final norm's output at the last position; without
        `skips`, only by paths on which no transcoder's skip lies."""
        layers = torch.full((len(directions),), self.n_blocks, device=directions.device)
        return self._rows(layers, torch.full_like(layers, self.n_positions - 1), directions, skips)

    def _rows(
        self, layers: Int[Tensor, " row"], positions: Int[Tensor, " row"], read: Float[Tensor, "row unit"], skips: bool
    ) -> Float[Tensor, "row column"]:
        """`layers` descend, so that the rows which have begun are the first ones. A row begins at what its block's MLP
        reads, or at what the unembedding reads."""
        found = read.new_zeros(len(read), self.n_columns)
        stream = read.new_zeros(len(read), self.n_positions, read.shape[1])
        logits = (layers == self.n_blocks).nonzero()[:, 0]
        stream[logits, positions[logits]] = read[logits] * self.final_norm
        for layer in reversed(range(self.n_blocks)):
            block, begun, beginning = self.blocks[layer], int((layers > layer).sum()), layers == layer
            if begun:
                self._contract(layer, stream[:begun], found[:begun])
                if skips:
                    block.before_mlp(stream[:begun])
                block.before_attention(stream[:begun])
            at = positions[beginning]
            if len(at):
                after = read[beginning] * block.mlp_norm[at]
                stream[begun : begun + len(at)] = block.before_attention_of_one(after, at)
        embeddings = self.n_columns - self.n_positions
        found[:, embeddings:] = _dots(stream, self.traced.token_vectors)
        return found

    def _contract(
        self, layer: int, stream: Float[Tensor, "row position unit"], found: Float[Tensor, "row column"]
    ) -> None:
        """Writes the columns of a block's latents and errors, which write into the stream after its MLP."""
        errors = len(self.latents) + layer * self.n_positions
        found[:, errors : errors + self.n_positions] = _dots(stream, self.traced.error_vectors[layer])
        latents = self.active[layer]
        if latents is not None:
            added = stream[:, latents.start :].transpose(0, 1) @ latents.written  # (position, row, slot)
            added = added.transpose(0, 1).reshape(len(stream), -1)
            found[:, latents.first : latents.first + len(latents.slots)] = added[:, latents.slots]


def _dots(
    stream: Float[Tensor, "row position unit"], vectors: Float[Tensor, "position unit"]
) -> Float[Tensor, "row position"]:
    return (stream.transpose(0, 1) @ vectors[:, :, None])[:, :, 0].T


# ------------------------------------------------------------------------------------------------ the constants


@contextlib.contextmanager
def _capturing(model: Replacement) -> Iterator[dict[str, Tensor]]:
    """Inside, a forward pass leaves its attention patterns and norm scales here, by the names of their hooks."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        seen[hook.name] = value.detach()

    names = [
        f"blocks.{layer}.{name}"
        for layer in range(model.cfg.n_layers)
        for name in ("attn.hook_pattern", "ln1.hook_scale", "ln2.hook_scale")
    ]
    with model.hooks(fwd_hooks=[(name, keep) for name in [*names, "ln_final.hook_scale"]]):
        yield seen


def _block(model: Replacement, layer: int, seen: dict[str, Tensor]) -> FrozenBlock:
    block, name = model.blocks[layer], f"blocks.{layer}"
    pattern = seen[f"{name}.attn.hook_pattern"][0]  # (head, query, key)
    value = getattr(block.attn, "_W_V", block.attn.W_V)  # not repeated for the heads that share one
    heads, positions = len(value), pattern.shape[1]
    pattern = pattern.view(heads, -1, positions, positions)
    return FrozenBlock(
        pattern=pattern.reshape(heads, -1, positions),
        by_query=pattern,
        output=block.attn.W_O.flatten(0, 1).T,
        value=value.transpose(1, 2).flatten(0, 1),
        attention_norm=block.ln1.w / seen[f"{name}.ln1.hook_scale"][0],
        mlp_norm=block.ln2.w / seen[f"{name}.ln2.hook_scale"][0],
        skip=model.transcoders[layer].W_skip.detach(),
    )
