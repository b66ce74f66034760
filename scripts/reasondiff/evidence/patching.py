"""What does a set of latents do to the reasoning model's predictions?

Twice, at one site and on the same tokens. *Patched*: the base's activations, moved towards the reasoning model's by
the set alone, go through the upper blocks of the reasoning model; the nearer its predictions come, the more the set
carries of the difference. *Ablated*: the set's part is taken out of the reasoning model's own activations. Tokens that
are masked (sinks, first positions, foreign ids) keep the reasoning model's own activations in both.

Source: docs/methods.md §5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode, decode, only
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.evaluation import SPLICED_PHASES
from reasondiff.models.load import load_model
from reasondiff.models.losses import compared_losses, final_hidden, final_hidden_from, next_token_targets
from reasondiff.models.stream import ActivationStream, SiteStatistics, model_inputs, unmasked
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import PackedRows, pack

PATCHED, ABLATED = "patched", "ablated"
NOTHING, EVERYTHING, ALL, ERROR = "nothing", "everything", "all_latents", "error_only"
"""Rows beside the sets: the base's activations as they are; the reasoning model's (0 by construction); all latents;
what the dictionary does not give back, biases included."""
QUANTITIES = ("kl", "ce_before", "ce_after", "targets")

Change = Callable[[Tensor, SparseCode], Tensor]


def set_changes(
    crosscoder: Crosscoder, sets: Mapping[str, Int[np.ndarray, " member"]]
) -> dict[tuple[str, str], Change]:
    """{(direction, row): function of raw activations [token, model, unit] and their code that gives the reasoning
    model's activations changed}. The base is the crosscoder's first model, the reasoning model its last."""
    device = crosscoder.decoder.device

    def written(code: SparseCode, members: np.ndarray | None) -> Tensor:
        """What some latents (all, for None) write to each model, without the bias: [token, model, unit]."""
        if members is not None:
            inside = torch.zeros(crosscoder.n_latents, dtype=torch.bool, device=device)
            inside[torch.from_numpy(np.asarray(members, dtype=np.int64)).to(device)] = True
            code = only(code, inside[code.latents])
        return decode(code, crosscoder.decoder).view(-1, crosscoder.n_models, crosscoder.width)

    def error(x: Tensor, code: SparseCode) -> Tensor:
        return x - written(code, None)  # biases are in it

    def towards(part: Tensor) -> Tensor:
        return part[:, -1] - part[:, 0]

    found: dict[tuple[str, str], Change] = {
        (PATCHED, NOTHING): lambda x, code: x[:, 0],
        (PATCHED, EVERYTHING): lambda x, code: x[:, -1],
        (PATCHED, ALL): lambda x, code: x[:, 0] + towards(written(code, None)),
        (PATCHED, ERROR): lambda x, code: x[:, 0] + towards(error(x, code)),
        (ABLATED, ALL): lambda x, code: x[:, -1] - written(code, None)[:, -1],
        (ABLATED, ERROR): lambda x, code: written(code, None)[:, -1],
    }
    for name, members in sets.items():
        found[PATCHED, name] = lambda x, code, members=members: x[:, 0] + towards(written(code, members))
        found[ABLATED, name] = lambda x, code, members=members: x[:, -1] - written(code, members)[:, -1]
    return found


class EffectSums:
    """The effects of sets of latents of several crosscoders of one site; they share each pass over the text."""

    def __init__(
        self,
        stream: ActivationStream,
        layer: int,
        statistics: SiteStatistics,
        crosscoders: Mapping[str, Crosscoder],
        sets: Mapping[str, Mapping[str, Int[np.ndarray, " member"]]],
    ):
        self.stream, self.layer, self.statistics = stream, layer, statistics
        self.crosscoders = dict(crosscoders)
        self.changes = {name: set_changes(crosscoder, sets[name]) for name, crosscoder in crosscoders.items()}
        self.problems = int(stream.table.problem.max()) + 1

    def run(self, tokens: int) -> dict[str, dict[tuple[str, str], Float[np.ndarray, "problem phase quantity"]]]:
        """{crosscoder: {(direction, row): sums over next-token targets}} of about so many tokens of the `report` part,
        per problem and phase of the predicted token (`SPLICED_PHASES`): KL(reasoning || changed), CE before, CE after
        in nats, and the number of targets."""
        stream, table = self.stream, self.stream.table
        reasoning = max(side for crosscoder in self.crosscoders.values() for side in crosscoder.sides)
        dtype = str(stream.models[reasoning].dtype).removeprefix("torch.")
        model = load_model(stream.infos[reasoning], stream.device, dtype)
        shape = (self.problems, len(SPLICED_PHASES), len(QUANTITIES))
        sums = {name: {key: np.zeros(shape) for key in changes} for name, changes in self.changes.items()}
        seen = 0
        for rows in pack(table, table.documents_of("report"), stream.context, stream.settings.batch_rows):
            self._add_rows(model, reasoning, rows, sums)
            seen += int((rows.document >= 0).sum())
            if seen >= tokens:
                break
        return sums

    @torch.no_grad()
    def _add_rows(self, model: Any, reasoning: int, rows: PackedRows, sums: dict[str, dict]) -> None:
        block = self.stream.read(rows)
        x = block.activations[self.layer].float()
        kept, _ = unmasked(block, self.layer, self.statistics, self.stream.settings)
        inputs = model_inputs(rows, self.stream.device)
        document = torch.from_numpy(rows.document).to(self.stream.device)
        predicted = next_token_targets(document)
        labels = inputs["input_ids"][:, 1:][predicted]
        members, problem = self._targets(rows, predicted)
        before = final_hidden(model, inputs)[:, :-1][predicted]
        output = x.new_zeros(*document.shape, x.shape[2]).to(model.dtype)  # of the block; padding stays zero
        for name, changes in self.changes.items():
            sides = x[:, self.crosscoders[name].sides]
            code = self.crosscoders[name].encode(sides)
            for key, change in changes.items():
                changed = torch.where(kept[:, None], change(sides, code), x[:, reasoning])
                output[document >= 0] = changed.to(model.dtype)
                after = final_hidden_from(model, self.layer, output, inputs)[:, :-1][predicted]
                losses = torch.stack(compared_losses(model, before, after, labels), dim=1).double().cpu().numpy()
                for index, inside in enumerate(members):
                    added = np.concatenate([losses[inside], np.ones((inside.sum(), 1))], axis=1)
                    np.add.at(sums[name][key][:, index], problem[inside], added)

    def _targets(
        self, rows: PackedRows, predicted: Bool[Tensor, "row position"]
    ) -> tuple[list[Bool[np.ndarray, " target"]], Int[np.ndarray, " target"]]:
        """(for each phase which targets are in it, the problem of each)."""
        where = predicted.cpu().numpy()
        phases = self.stream.table.phases[rows.token][:, 1:][where]  # of the predicted token
        members = [np.isin(phases, [PHASES.index(name) for name in group]) for group in SPLICED_PHASES.values()]
        return members, self.stream.table.problem[rows.document[:, 1:][where]]
