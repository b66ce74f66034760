"""What does a set of latents do to the reasoning model's predictions?

Twice, at one site and on the same tokens. *Patched*: the base's activations, moved towards the reasoning model's by
the set alone, go through the upper blocks of the reasoning model; the nearer its predictions come, the more the set
carries of the difference. *Ablated*: the set's part is taken out of the reasoning model's own activations. Tokens that
are masked (sinks, first positions, foreign ids) keep the reasoning model's own activations in both.

Source: docs/methods.md §5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode, decode, only
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.spliced_losses import LOSSES, SPLICED_PHASES, spliced_rows
from reasondiff.models.load import load_model
from reasondiff.models.stream import ActivationStream, SiteStatistics

PATCHED, ABLATED = "patched", "ablated"
NOTHING, EVERYTHING, ALL, ERROR = "nothing", "everything", "all_latents", "error_only"
"""Rows beside the sets: the base's activations as they are; the reasoning model's (0 by construction); all latents;
what the dictionary does not give back, biases included."""

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

    def run(self, tokens: int) -> dict[str, dict[tuple[str, str], Float[np.ndarray, "problem phase quantity"]]]:
        """{crosscoder: {(direction, row): sums over next-token targets}} of about so many tokens of the `report` part,
        of the phases and losses of `dictionaries.spliced_losses`."""
        stream = self.stream
        reasoning = max(side for crosscoder in self.crosscoders.values() for side in crosscoder.sides)
        dtype = str(stream.models[reasoning].dtype).removeprefix("torch.")
        model = load_model(stream.infos[reasoning], stream.device, dtype)
        shape = (int(stream.table.problem.max()) + 1, len(SPLICED_PHASES), len(LOSSES))
        sums = {name: {key: np.zeros(shape) for key in changes} for name, changes in self.changes.items()}
        for rows in spliced_rows(stream, self.layer, self.statistics, model, tokens):
            for name, changes in self.changes.items():
                sides = rows.x[:, self.crosscoders[name].sides]
                code = self.crosscoders[name].encode(sides)
                for key, change in changes.items():
                    changed = torch.where(rows.kept[:, None], change(sides, code), rows.x[:, reasoning])
                    rows.add(sums[name][key], changed)
        return sums
