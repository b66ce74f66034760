"""What does a model predict when the output of one of its blocks is replaced?

Source: docs/methods.md §5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.models.losses import compared_losses, final_hidden, final_hidden_from, next_token_targets
from reasondiff.models.stream import ActivationStream, SiteStatistics, model_inputs, unmasked
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import PackedRows, pack

SPLICED_PHASES = {"think": ("think",), "answer": ("answer",), "response": ("think", "answer")}
"""{name: phases of the predicted token}."""
LOSSES = ("kl", "ce_before", "ce_after", "targets")
"""What is summed: KL(model || spliced), CE of the model and of the spliced one, in nats, and predicted tokens."""


class SplicedRows:
    """Some packed rows at one site: raw activations `x` [token, model, unit] of the real tokens, which of them are
    unmasked (`kept` [token]), and what `model` predicts on them as it is."""

    @torch.no_grad()
    def __init__(self, stream: ActivationStream, layer: int, statistics: SiteStatistics, model: Any, rows: PackedRows):
        block = stream.read(rows)
        self.model, self.layer = model, layer
        self.x = block.activations[layer].float()
        self.kept, _ = unmasked(block, layer, statistics, stream.settings)
        self.inputs = model_inputs(rows, stream.device)
        self.document = torch.from_numpy(rows.document).to(stream.device)
        self.predicted = next_token_targets(self.document)
        self.labels = self.inputs["input_ids"][:, 1:][self.predicted]
        self.before = final_hidden(model, self.inputs)[:, :-1][self.predicted]
        where = self.predicted.cpu().numpy()
        phases = stream.table.phases[rows.token][:, 1:][where]
        self.members = [np.isin(phases, [PHASES.index(name) for name in group]) for group in SPLICED_PHASES.values()]
        self.problem = stream.table.problem[rows.document[:, 1:][where]]
        self.output = self.x.new_zeros(*rows.document.shape, self.x.shape[2]).to(model.dtype)  # padding stays zero

    @torch.no_grad()
    def add(self, sums: Float[np.ndarray, "problem phase quantity"], activations: Float[Tensor, "token unit"]) -> None:
        """Adds to `sums` (`SPLICED_PHASES`, `LOSSES`) what the model loses with these activations in the block's place;
        only the blocks above run again."""
        self.output[self.document >= 0] = activations.to(self.model.dtype)
        after = final_hidden_from(self.model, self.layer, self.output, self.inputs)[:, :-1][self.predicted]
        losses = torch.stack(compared_losses(self.model, self.before, after, self.labels), dim=1)
        counted = np.concatenate([losses.double().cpu().numpy(), np.ones((len(losses), 1))], axis=1)
        for phase, inside in enumerate(self.members):
            np.add.at(sums[:, phase], self.problem[inside], counted[inside])


def spliced_rows(
    stream: ActivationStream, layer: int, statistics: SiteStatistics, model: Any, tokens: int
) -> Iterator[SplicedRows]:
    """The rows of the `report` part at one site, until they hold so many tokens."""
    seen = 0
    for rows in pack(stream.table, stream.table.documents_of("report"), stream.context, stream.settings.batch_rows):
        yield SplicedRows(stream, layer, statistics, model, rows)
        seen += int((rows.document >= 0).sum())
        if seen >= tokens:
            return
