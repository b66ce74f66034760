"""What does a model predict, token by token, without ever holding the logits of a whole batch?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

TARGETS_AT_ONCE = 4096  # targets whose logits are made together: 4096 x 152k ids in fp32 are 2.5 GB


def next_token_targets(document: Int[Tensor, "row position"]) -> Bool[Tensor, "row position_less_one"]:
    """True at position t where token t + 1 belongs to the same document, so that it is predicted from it."""
    return (document[:, 1:] == document[:, :-1]) & (document[:, 1:] >= 0)


def final_hidden(model: Any, inputs: dict[str, Tensor]) -> Float[Tensor, "row position unit"]:
    """The last hidden states (after the final norm), without logits."""
    return model.model(**inputs, use_cache=False).last_hidden_state


@torch.no_grad()
def token_losses(
    model: Any, inputs: dict[str, Tensor], predicted: Bool[Tensor, "row position"]
) -> Float[Tensor, " target"]:
    """Cross-entropy in nats of each next token marked in `predicted` (see `next_token_targets`), in reading order."""
    hidden = final_hidden(model, inputs)[:, :-1][predicted]
    labels = inputs["input_ids"][:, 1:][predicted]
    parts = [
        F.cross_entropy(model.lm_head(states).float(), wanted, reduction="none")
        for states, wanted in zip(hidden.split(TARGETS_AT_ONCE), labels.split(TARGETS_AT_ONCE), strict=True)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0)


@torch.no_grad()
def compared_losses(
    model: Any,
    original: Float[Tensor, "target unit"],
    changed: Float[Tensor, "target unit"],
    labels: Int[Tensor, " target"],
) -> tuple[Float[Tensor, " target"], Float[Tensor, " target"], Float[Tensor, " target"]]:
    """(KL(original || changed), CE original, CE changed), each in nats per target, from final hidden states."""
    results = [
        _losses(log_p, log_q, wanted) for log_p, log_q, wanted in _log_probabilities(model, original, changed, labels)
    ]
    if not results:
        empty = original.new_zeros(0)
        return empty, empty, empty
    return tuple(torch.cat(column) for column in zip(*results, strict=True))


@torch.no_grad()
def compared_predictions(
    model: Any,
    original: Float[Tensor, "target unit"],
    changed: Float[Tensor, "target unit"],
    labels: Int[Tensor, " target"],
) -> Float[Tensor, "target 4"]:
    """The three columns of `compared_losses`, and 1 where both find the same token most probable, else 0."""
    results = []
    for log_p, log_q, wanted in _log_probabilities(model, original, changed, labels):
        same = (log_p.argmax(-1) == log_q.argmax(-1)).float()
        results.append(torch.stack([*_losses(log_p, log_q, wanted), same], dim=1))
    return torch.cat(results)


def _log_probabilities(model: Any, original: Tensor, changed: Tensor, labels: Tensor) -> Iterator[tuple]:
    """(log-probabilities of the original, those of the changed [target, id], labels), some targets at a time."""
    for before, after, wanted in zip(
        *(part.split(TARGETS_AT_ONCE) for part in (original, changed, labels)), strict=True
    ):
        yield model.lm_head(before).float().log_softmax(-1), model.lm_head(after).float().log_softmax(-1), wanted


def _losses(log_p: Tensor, log_q: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(KL, CE original, CE changed) of each target."""
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    at_label = wanted[:, None]
    return divergence, -log_p.gather(1, at_label)[:, 0], -log_q.gather(1, at_label)[:, 0]


@torch.no_grad()
def final_hidden_and_inputs(
    model: Any, layers: Iterable[int], inputs: dict[str, Tensor]
) -> tuple[Float[Tensor, "row position unit"], dict[int, Float[Tensor, "row position unit"]]]:
    """(the last hidden states, {layer: what its block receives, for block 0 the embeddings})."""
    output = model.model(**inputs, use_cache=False, output_hidden_states=True)
    return output.last_hidden_state, {layer: output.hidden_states[layer] for layer in layers}


@torch.no_grad()
def final_hidden_from(
    model: Any, layer: int, hidden: Float[Tensor, "row position unit"], inputs: dict[str, Tensor]
) -> Float[Tensor, "row position unit"]:
    """The last hidden states when the output of block `layer` is `hidden`: only the blocks above it run.

    With the model's own output of that block this equals `final_hidden`. Layer -1 stands for the embeddings.
    """
    blocks = model.model.layers
    model.model.layers = blocks[layer + 1 :]
    above = {"inputs_embeds": hidden, **{key: inputs[key] for key in inputs if key != "input_ids"}}
    try:
        return final_hidden(model, above)
    finally:
        model.model.layers = blocks
