"""What are the activations of several models on the same tokens, without ever storing them all?

One forward pass per model, stopped after the deepest layer wanted, writes the outputs of the wanted blocks side by
side; or, of one model, the inputs and outputs of the wanted MLPs. `layer15` is the output of block 15 counted from 0.
Documents are packed into rows with attention confined to each document.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.config import Stream
from reasondiff.models.compiled import compiled_forwards, running
from reasondiff.models.load import ModelError, ModelInfo, load_model
from reasondiff.models.mlp import find_mlp
from reasondiff.text.tokens import PackedRows, TokenTable, pack


@dataclass(frozen=True)
class Block:
    """Activations of the real (unpadded) tokens of some packed rows.

    `activations[layer]` [token, side, unit], the sides being the models, or an MLP's input and output;
    `token` [token] indexes the token table; `document` [token] likewise;
    `position` [token] counts from 0 in each document; `kept` [token] is False at first positions and foreign ids.
    """

    activations: dict[int, Float[Tensor, "token side unit"]]
    token: Int[Tensor, " token"]
    document: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    kept: Bool[Tensor, " token"]


def document_mask(document: Int[Tensor, "row position"]) -> Bool[Tensor, "row 1 position position"]:
    """True where a token may look: at itself and earlier tokens of its own document."""
    same = document[:, :, None] == document[:, None, :]
    return same.tril().unsqueeze(1)


def model_inputs(rows: PackedRows, device: str) -> dict[str, Tensor]:
    """Arguments of a Hugging Face forward pass for packed rows: block-diagonal attention, positions per document."""
    document = torch.from_numpy(rows.document).to(device)
    return {
        "input_ids": torch.from_numpy(rows.ids).to(device),
        "position_ids": torch.from_numpy(rows.positions).to(device),
        "attention_mask": document_mask(document),
    }


def block_output(output: Any) -> Tensor:
    """The residual stream after a block, whether the block returns a tensor or a tuple."""
    return output[0] if isinstance(output, tuple) else output


class ActivationStream:
    """Reads M models on the same packed documents and yields `Block`s.

    `place`: `block` gives block outputs, a side for each model; `mlp` the MLPs of one model, with two sides, input
    (after the norm) and output. The models are shortened after the deepest wanted layer. Iterating twice gives the
    same blocks.

    Raises:
        ModelError: the models' widths differ, a layer does not exist in one of them, or the MLPs are asked for of
            several models or of an architecture where they are not known.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo],
        layers: Sequence[int],
        table: TokenTable,
        foreign_ids: Sequence[int],
        settings: Stream,
        context: int,
        device: str,
        dtype: str,
        place: Literal["block", "mlp"] = "block",
    ):
        if place == "mlp" and len(models) != 1:
            raise ModelError(f"the MLPs of one model are read at a time; these are {len(models)}")
        if len({info.hidden for info in models}) > 1:
            widths = ", ".join(f"{info.name}: {info.hidden}" for info in models)
            raise ModelError(f"a crosscoder needs models of one width; these have {widths}")
        self.infos, self.layers, self.table = list(models), sorted(set(layers)), table
        self.settings, self.context, self.device = settings, context, device
        self.width, self.place = models[0].hidden, place
        self.foreign = np.array(sorted(foreign_ids), dtype=np.int64)
        self.models = [load_model(info, device, dtype, layers=self.layers[-1] + 1) for info in models]
        if place == "mlp":
            find_mlp(self.models[0], self.layers[-1])  # refuses an unknown architecture before anything is read
        self.compiled = [compiled_forwards(model, place) if settings.compile else {} for model in self.models]

    @property
    def n_sides(self) -> int:
        """Activations side by side at a site: one of each model, or an MLP's input and output."""
        return 2 if self.place == "mlp" else len(self.models)

    def only(self, layers: Sequence[int]) -> ActivationStream:
        """The same stream at some of its layers, its models stopped after the deepest of them.

        Raises:
            ModelError: the stream does not read one of the layers.
        """
        if missing := set(layers) - set(self.layers):
            raise ModelError(f"this stream reads layers {self.layers}; {sorted(missing)} were asked for")
        chosen = copy.copy(self)
        chosen.layers = sorted(set(layers))
        return chosen

    def __call__(self, documents: np.ndarray) -> Iterator[Block]:
        """Blocks of these documents, in the order that packing gives."""
        for rows in pack(self.table, documents, self.context, self.settings.batch_rows):
            yield self.read(rows)

    @torch.no_grad()
    def read(self, rows: PackedRows) -> Block:
        """The activations of all models on these rows."""
        dtype = self.models[0].dtype
        inputs = _with_additive_mask(model_inputs(rows, self.device), dtype)
        real = torch.from_numpy(np.flatnonzero(rows.document >= 0)).to(self.device)  # places in the flattened rows
        outputs = {layer: self.room(len(real)) for layer in self.layers}
        for side, model in enumerate(self.models):
            hooks = {
                find_mlp(model, layer) if self.place == "mlp" else model.model.layers[layer]: (
                    _mlp_writer(target, real) if self.place == "mlp" else _block_writer(target[:, side], real)
                )
                for layer, target in outputs.items()
            }
            with running(self.compiled[side]):
                _run(model, inputs, hooks, self.layers[-1] + 1)
        return self.block(rows, outputs)

    def room(self, tokens: int) -> Float[Tensor, "token side unit"]:
        """Memory for the activations of so many tokens at one layer."""
        return torch.empty(tokens, self.n_sides, self.width, dtype=self.models[0].dtype, device=self.device)

    def block(self, rows: PackedRows, activations: dict[int, Float[Tensor, "token side unit"]]) -> Block:
        """Activations of the real tokens of some rows, with what is known of those tokens."""
        token = rows.token[rows.document >= 0]
        positions = rows.positions[rows.document >= 0]
        kept = (positions >= self.settings.first_positions) & ~np.isin(self.table.ids[token], self.foreign)
        as_tensor = lambda array: torch.from_numpy(array).to(self.device)  # noqa: E731
        return Block(
            activations,
            as_tensor(token),
            as_tensor(rows.document[rows.document >= 0]),
            as_tensor(positions),
            as_tensor(kept),
        )


def _run(model: Any, inputs: dict, hooks: dict[Any, Any], blocks: int) -> None:
    """A forward pass through the first `blocks` blocks; what is wanted of it is written by hooks, {module: hook}."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    every_block = model.model.layers
    model.model.layers = every_block[:blocks]
    try:
        model.model(**inputs, use_cache=False)
    finally:
        model.model.layers = every_block
        for handle in handles:
            handle.remove()


def _with_additive_mask(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same inputs with the mask as attention adds it, so that no layer has to make it anew."""
    allowed = inputs["attention_mask"]
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
    return {**inputs, "attention_mask": mask}


def _block_writer(target: Tensor, real: Int[Tensor, " token"]) -> Any:
    """A forward hook that copies the real tokens of a block's output into `target` [token, unit]."""

    def write(_module: Any, _arguments: Any, output: Any) -> None:
        target.copy_(block_output(output).flatten(0, 1).index_select(0, real))

    return write


def _mlp_writer(target: Tensor, real: Int[Tensor, " token"]) -> Any:
    """A forward hook that copies the real tokens of an MLP's input and output into `target` [token, 2, unit]."""

    def write(_module: Any, arguments: tuple, output: Tensor) -> None:
        target[:, 0] = arguments[0].flatten(0, 1).index_select(0, real)
        target[:, 1] = output.flatten(0, 1).index_select(0, real)

    return write


@dataclass(frozen=True)
class SiteStatistics:
    """Constants of one site, measured once on calibration tokens.

    `median_norm` [side]: median activation norm, sinks included; `scale` [side]: brings the mean norm of unmasked
    tokens to sqrt(d); `mean` [side, unit]: mean of unmasked raw activations; `tokens` they rest on.
    """

    median_norm: Float[Tensor, " side"]
    scale: Float[Tensor, " side"]
    mean: Float[Tensor, "side unit"]
    tokens: int


def calibrate(stream: ActivationStream, documents: np.ndarray, tokens: int) -> dict[int, SiteStatistics]:
    """Constants of every site of a stream from its first `tokens` tokens.

    Two passes, norms first and means second, so that memory does not grow with layers times tokens times width.
    Source: docs/methods.md §2 (median) and §3 (scale).

    Raises:
        ModelError: the documents hold no unmasked token, or an activation is not finite.
    """
    norms: dict[int, list[Tensor]] = {layer: [] for layer in stream.layers}
    kept: list[Tensor] = []
    for block in _first_tokens(stream, documents, tokens):
        for layer, x in block.activations.items():
            norms[layer].append(x.float().norm(dim=2))
        kept.append(block.kept)
    if not kept:
        raise ModelError("no calibration tokens: the `calibrate` part of the text is empty; use more text")
    mask = torch.cat(kept)
    width = x.shape[2]
    found = {layer: _scales(layer, torch.cat(parts), mask, width, stream.settings) for layer, parts in norms.items()}
    sums = {layer: torch.zeros_like(statistics.mean, dtype=torch.float64) for layer, statistics in found.items()}
    counts = dict.fromkeys(found, 0)
    for block in _first_tokens(stream, documents, tokens):
        for layer, x in block.activations.items():
            chosen, _ = unmasked(block, layer, found[layer], stream.settings)
            sums[layer] += x[chosen].double().sum(0)
            counts[layer] += int(chosen.sum())
    return {layer: replace(found[layer], mean=(sums[layer] / counts[layer]).float()) for layer in found}


def _first_tokens(stream: ActivationStream, documents: np.ndarray, tokens: int) -> Iterator[Block]:
    """The blocks of a stream, the last one cut, until so many tokens are reached."""
    seen = 0
    for block in stream(documents):
        room = tokens - seen
        if room <= 0:
            return
        seen += len(block.token)
        if len(block.token) > room:
            cut = {name: getattr(block, name)[:room] for name in ("token", "document", "position", "kept")}
            block = Block({layer: x[:room] for layer, x in block.activations.items()}, **cut)
        yield block


def _scales(
    layer: int, norms: Float[Tensor, "token side"], kept: Bool[Tensor, " token"], width: int, settings: Stream
) -> SiteStatistics:
    """Median norms and scales; the mean is still zero."""
    if not torch.isfinite(norms).all():
        raise ModelError(f"layer {layer}: activations are not finite; use dtype: float32, or check the models")
    median = norms.median(dim=0).values
    kept = kept & (norms <= settings.norm_factor * median).all(1)
    if not kept.any():
        raise ModelError(f"layer {layer}: every calibration token is masked; check first_positions and norm_factor")
    scale = width**0.5 / norms[kept].mean(0)
    return SiteStatistics(median, scale, norms.new_zeros(norms.shape[1], width), len(norms))


def unmasked(
    block: Block, layer: int, statistics: SiteStatistics, settings: Stream
) -> tuple[Bool[Tensor, " token"], Bool[Tensor, " token"]]:
    """(tokens used for training and headline metrics, tokens that are sinks by norm at this site)."""
    norms = block.activations[layer].float().norm(dim=2)
    sinks = (norms > settings.norm_factor * statistics.median_norm).any(1)
    return block.kept & ~sinks, sinks
