"""Which latents of a context are followed, and what do the edges of its graph add up to?

Source: docs/methods.md §10; circuit-tracer 0.5.0, attribution/attribute.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.graphs.frozen import FrozenContext
from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, NO_FEATURE, Graph, make_graph
from reasondiff.graphs.replacement import Replacement

AT_ONCE = 256  # rows, or columns, of which a copy is in memory


@dataclass(frozen=True)
class Logits:
    """The tokens whose logits are explained, the target's first."""

    ids: Int[Tensor, " logit"]
    probability: Float[Tensor, " logit"]
    direction: Float[Tensor, "logit unit"]
    """What each reads of the final norm's output: its unembedding minus the mean of all, so that its logit is over
    the mean logit."""


def explained_logits(model: Replacement, logits: Float[Tensor, " token"], target_id: int, runners_up: int) -> Logits:
    """The target's logit and those of the `runners_up` most probable other tokens; `logits` are all at its position."""
    order = torch.argsort(logits, descending=True, stable=True)
    others = order[order != target_id][:runners_up]
    ids = torch.cat([torch.tensor([target_id], device=others.device), others])
    unembedding = model.unembed.W_U
    direction = (unembedding[:, ids] - unembedding.mean(1, keepdim=True)).T
    return Logits(ids, logits.double().softmax(0)[ids], direction)


@dataclass(frozen=True)
class Rows:
    """What each column of a context (`FrozenContext`) adds to the logits and to the latents that were chosen."""

    chosen: Int[Tensor, " latent"]
    """Their columns, ascending."""
    into_logits: Float[Tensor, "logit column"]
    into_latents: Float[Tensor, "latent column"]
    included: float
    """Of the influence of all active latents, the share of the chosen ones: 1 where all were chosen. Paths through a
    latent that was not chosen end there, so that what lies before it is not counted, chosen or not."""


def attributed(context: FrozenContext, named: Logits, max_features: int | None, batch_size: int) -> Rows:
    """The rows of all active latents, or of `max_features` of them: again and again, of the latents without a row the
    `batch_size` that have most influence on the logits through those with one.

    Source: circuit-tracer's `attribute` with `update_interval=1`.
    """
    active = len(context.latents)
    wanted = active if max_features is None else min(max_features, active)
    into_logits = context.into_logits(named.direction, skips=True)
    if wanted == active:
        every = torch.arange(active, device=into_logits.device)
        return Rows(every, into_logits, context.into_latents(every), 1.0)
    chosen = torch.zeros(0, dtype=torch.long, device=into_logits.device)
    rows = torch.zeros(wanted, context.n_columns, device=into_logits.device)
    while len(chosen) < wanted:
        influence = _influence(context, named, into_logits, rows[: len(chosen)], chosen)
        influence[chosen] = -1.0
        order = torch.argsort(influence, descending=True, stable=True)
        part = order[: min(batch_size, wanted - len(chosen))]
        rows[len(chosen) : len(chosen) + len(part)] = context.into_latents(part)
        chosen = torch.cat([chosen, part])
    influence = _influence(context, named, into_logits, rows, chosen)
    order = torch.argsort(chosen)
    for columns in rows.split(AT_ONCE, dim=1):
        columns.copy_(columns[order])
    return Rows(chosen[order], into_logits, rows, _share(influence[chosen], influence))


def _influence(
    context: FrozenContext,
    named: Logits,
    into_logits: Float[Tensor, "logit column"],
    into_latents: Float[Tensor, "row column"],
    chosen: Int[Tensor, " row"],
) -> Float[Tensor, " latent"]:
    """The influence of each active latent on the logits, by paths through `chosen` latents alone.

    The same as: follow the logits' weights back, sharing them out over a row's columns in proportion to their absolute
    values, until no path is left. A path has a latent of each block at most.
    """
    active = len(context.latents)
    passed = _handed_on(named.probability.to(into_logits), into_logits, active)
    influence = passed.clone()
    for _ in range(context.n_blocks):
        arrived = passed[chosen]
        if not arrived.any():
            break
        passed = _handed_on(arrived, into_latents, active)
        influence += passed
    return influence


def _handed_on(
    amounts: Float[Tensor, " row"], rows: Float[Tensor, "row column"], active: int
) -> Float[Tensor, " latent"]:
    """What the first `active` columns get when each row's amount is shared out in proportion to its absolute values.

    A few rows at a time: on a long context these rows are most of what is in memory.
    """
    passed = rows.new_zeros(active)
    for amount, some in zip(amounts.split(AT_ONCE), rows.split(AT_ONCE), strict=True):
        size = some.abs()
        passed += (amount / size.sum(1).clamp(min=torch.finfo(size.dtype).tiny)) @ size[:, :active]
    return passed


def _share(part: Float[Tensor, " some"], whole: Float[Tensor, " all"]) -> float:
    return float(part.double().sum() / whole.double().sum())


def share_skip(context: FrozenContext, rows: Rows, named: Logits) -> float:
    """The part of `feature_share` that goes through the skip of at least one transcoder, from 0 to `feature_share`.

    Each edge w into a logit is d + s, where d is what it would be without skips (`s` are the paths through them), and
    counts as |s| / (|d| + |s|), since the two may have opposite signs.
    """
    direct = context.into_logits(named.direction, skips=False)[:, rows.chosen].double()
    edges = folded(context, rows.chosen, rows.into_logits).double()
    into = edges[:, : len(rows.chosen)]
    skipped = (into - direct).abs()
    through = into.abs() * skipped / (skipped + direct.abs()).clamp(min=torch.finfo(direct.dtype).tiny)
    weight = named.probability / named.probability.sum()
    return float(weight @ (through.sum(1) / edges.abs().sum(1)))


# ------------------------------------------------------------------------------------------------ the graph


def folded(
    context: FrozenContext, chosen: Int[Tensor, " latent"], rows: Float[Tensor, "row column"]
) -> Float[Tensor, "row source"]:
    """Columns of `chosen` latents, errors and embeddings: what latents that were not chosen write is added to the error
    of their block and position."""
    active = len(context.latents)
    left_out = torch.ones(active, dtype=torch.bool, device=rows.device)
    left_out[chosen] = False
    layer, position, _ = context.latents[left_out].unbind(1)
    rest = rows[:, active:].clone()
    for some, errors in zip(rows.split(AT_ONCE), rest.split(AT_ONCE), strict=True):
        errors.index_add_(1, layer * context.n_positions + position, some[:, :active][:, left_out])
    return torch.cat([rows[:, chosen], rest], dim=1)


def whole_graph(
    context: FrozenContext, rows: Rows, named: Logits, ids: Sequence[int], tokens: tuple[str, ...]
) -> Graph:
    """The graph of a context's `ids`, without influences and facts.

    Raises:
        ValueError: an edge is not finite.
    """
    parts = [folded(context, rows.chosen, part) for part in (rows.into_latents, rows.into_logits)]
    weights = torch.cat(parts).cpu().numpy()
    blocks, positions, logits = context.n_blocks, context.n_positions, len(named.ids)
    layer, position, number = context.latents[rows.chosen].cpu().numpy().T
    errors, every = np.arange(blocks * positions), np.arange(positions)
    latents, others = len(layer), len(errors) + positions
    activation = context.traced.activation_matrix.values()[rows.chosen].cpu().numpy()
    row, source = np.nonzero(weights)
    return make_graph(
        tokens,
        {},
        kind=np.repeat([FEATURE, ERROR, EMBEDDING, LOGIT], [latents, len(errors), positions, logits]),
        layer=np.concatenate([layer, errors // positions, np.full(positions, -1), np.full(logits, blocks)]),
        position=np.concatenate([position, errors % positions, every, np.full(logits, positions - 1)]),
        feature=np.concatenate([number, np.full(len(errors), NO_FEATURE), np.array(ids), named.ids.cpu().numpy()]),
        activation=np.concatenate([activation, np.full(others + logits, np.nan)]),
        influence=np.full(latents + others + logits, np.nan),
        probability=np.concatenate([np.full(latents + others, np.nan), named.probability.cpu().numpy()]),
        source=source,
        target=np.where(row < latents, row, row + others),
        weight=weights[row, source],
    )
