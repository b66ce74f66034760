"""What does a model expect next when transcoders take the place of all its MLPs?

circuit-tracer's model gives the original's logits by construction, so its graphs cannot say how good the transcoders
are. The Hugging Face model with its MLPs replaced can.

Source: docs/methods.md §6 and §10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.dictionaries.replacements import imitation
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.mlp import replaced_mlps


@dataclass(frozen=True)
class Replaced:
    """The next token after a context, by a model whose MLPs were replaced, beside that by the model itself."""

    kl: float
    """Of the replaced model from the original, in nats: 0 or more."""
    top1: bool
    """Whether both find the same token most probable."""


@torch.no_grad()
def compare_replaced(
    own: Any,
    transcoders: Mapping[int, Transcoder],
    ids: Int[Tensor, " position"],
    logits: Float[Tensor, " token"],
    first_positions: int,
) -> Replaced:
    """The Hugging Face model `own` with the MLP of every layer in `transcoders` replaced, at all positions but the
    first `first_positions`, which no transcoder learnt, against its own `logits` after the last of `ids`."""
    replacements = {layer: imitation(transcoder) for layer, transcoder in transcoders.items()}
    where = (torch.arange(len(ids), device=ids.device) >= first_positions)[None]
    with replaced_mlps(own, replacements, where):
        changed = own(ids[None], logits_to_keep=1).logits[0, -1]
    before, after = (one.double().log_softmax(0) for one in (logits, changed))
    return Replaced(kl=float((before.exp() * (before - after)).sum()), top1=bool(before.argmax() == after.argmax()))
