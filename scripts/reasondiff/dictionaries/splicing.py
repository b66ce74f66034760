"""What does a model lose when MLPs are replaced, by transcoders or by something poorer?

The model runs twice on the same packed rows, as it is and with some MLPs replaced, and its predictions are compared
target by target. Sums are kept per problem: every figure is a ratio of sums, and its interval resamples problems.

Source: docs/methods.md §5 and §6.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.dictionaries.replacements import Sample
from reasondiff.dictionaries.spliced_losses import SPLICED_PHASES
from reasondiff.models.load import load_model
from reasondiff.models.losses import (
    compared_predictions,
    final_hidden_and_inputs,
    final_hidden_from,
    next_token_targets,
)
from reasondiff.models.mlp import Replacement, replaced_mlps
from reasondiff.models.stream import ActivationStream, SiteStatistics, model_inputs, unmasked
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import PackedRows, TokenTable, pack

TARGET_PHASES = {"all": PHASES, **SPLICED_PHASES}  # of the predicted token
KL, CE_ORIGINAL, CE_CHANGED, AGREEMENT, TARGETS = range(5)  # what is summed


@dataclass(frozen=True)
class Splice:
    """MLPs that are replaced together. With mask `unmasked` sinks, first positions and foreign ids keep the model's
    own MLP outputs, with `all` no token does."""

    replacements: Mapping[int, Replacement]
    mask: Literal["unmasked", "all"]


def spliced_sums(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    splices: Mapping[Hashable, Splice],
    sample: Sample,
) -> dict[Hashable, Float[np.ndarray, "problem phase quantity"]]:
    """For each splice the sums over next-token targets, per problem and phase (`TARGET_PHASES`), of KL(original ||
    spliced), CE of the original, CE of the spliced, top-1 agreements and targets, in nats and counts."""
    dtype = str(stream.models[0].dtype).removeprefix("torch.")
    model = load_model(stream.infos[0], stream.device, dtype)
    shape = (sample.problems, len(TARGET_PHASES), TARGETS + 1)
    sums = {key: torch.zeros(shape, dtype=torch.float64, device=stream.device) for key in splices}
    for rows in pack(stream.table, sample.documents, stream.context, stream.settings.batch_rows):
        _add_rows(model, stream, statistics, rows, splices, sample, sums)
    return {key: total.cpu().numpy() for key, total in sums.items()}


def _add_rows(
    model: Any,
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    rows: PackedRows,
    splices: Mapping[Hashable, Splice],
    sample: Sample,
    sums: dict[Hashable, Tensor],
) -> None:
    """Adds the losses of some packed rows. Only the blocks from a splice's first layer on run again."""
    masks = _masks(stream, statistics, rows)
    inputs = model_inputs(rows, stream.device)
    predicted = next_token_targets(torch.from_numpy(rows.document).to(stream.device))
    labels = inputs["input_ids"][:, 1:][predicted]
    problem, members = _targets(stream.table, rows, sample, predicted)
    starts = {min(splice.replacements) for splice in splices.values()}
    whole, entering = final_hidden_and_inputs(model, starts, inputs)
    original = whole[:, :-1][predicted]
    for key, splice in splices.items():
        start = min(splice.replacements)
        with replaced_mlps(model, splice.replacements, masks[splice.mask].__getitem__):
            changed = final_hidden_from(model, start - 1, entering[start], inputs)[:, :-1][predicted]
        losses = compared_predictions(model, original, changed, labels).double()
        counted = torch.cat([losses, torch.ones_like(losses[:, :1])], dim=1)  # (target, quantity)
        sums[key].index_put_((problem,), members[:, :, None] * counted[:, None], accumulate=True)


def _masks(
    stream: ActivationStream, statistics: Mapping[int, SiteStatistics], rows: PackedRows
) -> dict[str, dict[int, Bool[Tensor, "row position"]]]:
    """{mask: {layer: the tokens replaced there}}; sinks are found at each layer, in the model as it is."""
    block = stream.read(rows)
    real = torch.from_numpy(rows.document >= 0).to(stream.device)
    found = {"all": dict.fromkeys(stream.layers, real), "unmasked": {}}
    for layer in stream.layers:
        found["unmasked"][layer] = torch.zeros_like(real)
        found["unmasked"][layer][real], _ = unmasked(block, layer, statistics[layer], stream.settings)
    return found


def _targets(
    table: TokenTable, rows: PackedRows, sample: Sample, predicted: Bool[Tensor, "row position"]
) -> tuple[Int[Tensor, " target"], Float[Tensor, "target phase"]]:
    """(number of each target's problem, 1 where its token belongs to a phase and else 0)."""
    where = predicted.cpu().numpy()
    problem = sample.number[rows.document[:, 1:][where]]
    phases = table.phases[rows.token[:, 1:][where]]
    codes = [[PHASES.index(phase) for phase in members] for members in TARGET_PHASES.values()]
    inside = np.stack([np.isin(phases, group) for group in codes], axis=1)
    return torch.from_numpy(problem).to(predicted.device), torch.from_numpy(inside).double().to(predicted.device)


def increase(sums: Float[np.ndarray, "problem quantity"]) -> Float[np.ndarray, " problem"]:
    """CE added to each problem, in nats summed over its targets."""
    return sums[:, CE_CHANGED] - sums[:, CE_ORIGINAL]


def headline_phase(sums: Float[np.ndarray, "problem phase quantity"]) -> int:
    """Which of `TARGET_PHASES` figures are about: the response where the text has any, else all targets. What stands
    in a prompt is not the model's to predict."""
    phases = list(TARGET_PHASES)
    return phases.index("response" if sums[:, phases.index("response"), TARGETS].any() else "all")
