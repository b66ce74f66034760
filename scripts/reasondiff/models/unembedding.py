"""How does a model turn its residual stream into logits?

logits = U (w * x / rms(x)) for the stream x after the last block, with the final norm's weight w and the unembedding
U. A direction added to x while rms(x) stays as it is moves the logits by U (w * direction) / rms(x): only that product
without the division is a property of the model and the direction alone.

Source: docs/methods.md §4; direct logit attribution, nostalgebraist 2020, "Interpreting GPT: the logit lens".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.models.load import ModelError, ModelInfo, refuse_changed

# Architectures whose logits are `lm_head(norm(x))` with an RMSNorm that multiplies by its weight, and where the two
# are. To add one, check that nothing else is done (no 1 + weight, no soft cap, no scale) and write its line.
LAST_STEPS = {
    "LlamaForCausalLM": ("model.norm", "lm_head"),
    "MistralForCausalLM": ("model.norm", "lm_head"),
    "Qwen2ForCausalLM": ("model.norm", "lm_head"),
    "Qwen3ForCausalLM": ("model.norm", "lm_head"),
}


@dataclass(frozen=True)
class Unembedding:
    """The last two steps of one model, in float32: `norm` [unit] multiplies the normalised stream, `weight` [id, unit]
    turns it into logits. `model` is the model's name."""

    model: str
    norm: Float[Tensor, " unit"]
    weight: Float[Tensor, "id unit"]

    @property
    def width(self) -> int:
        """Units of the residual stream."""
        return len(self.norm)

    def effects(self, directions: Float[Tensor, "direction unit"]) -> Float[Tensor, "direction id"]:
        """What one unit of each direction in the final residual stream adds to the logits, times the stream's rms,
        which is held fixed."""
        return (directions * self.norm) @ self.weight.T


def read_unembedding(info: ModelInfo, device: str) -> Unembedding:
    """The final norm and the unembedding of a model, tied to its embedding or not. No block is loaded.

    Raises:
        ModelError: the architecture is not among those whose last steps are known, its files are broken, or a weight
            is not finite.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if info.architecture not in LAST_STEPS:
        raise ModelError(
            f"model {info.name!r}: how a {info.architecture} makes its logits is not known. Logit effects work on "
            f"{', '.join(LAST_STEPS)}; to add an architecture, write its final norm and unembedding into LAST_STEPS in "
            "scripts/reasondiff/models/unembedding.py"
        )
    refuse_changed(info)
    try:
        config = AutoConfig.from_pretrained(info.folder)
        config.num_hidden_layers = 0
        if getattr(config, "layer_types", None):
            config.layer_types = []
        with _without_remarks_on_unread_blocks():
            model, report = AutoModelForCausalLM.from_pretrained(
                info.folder, config=config, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:
        raise ModelError(
            f"model {info.name!r} in {info.folder} cannot be loaded ({type(error).__name__}: {error}). Its files are "
            "truncated or do not fit its config.json: fetch or train it again."
        ) from error
    if lost := sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]):
        raise ModelError(f"model {info.name!r}: weights are missing from {info.folder} or of another size: {lost}")
    norm, head = (model.get_submodule(name).weight.detach().to(device) for name in LAST_STEPS[info.architecture])
    if not bool(norm.isfinite().all() and head.isfinite().all()):
        raise ModelError(f"model {info.name!r}: its final norm or unembedding has values that are not finite")
    return Unembedding(info.name, norm, head)


@contextlib.contextmanager
def _without_remarks_on_unread_blocks() -> Iterator[None]:
    """transformers warns of every weight in a file that it was not asked for; here these are all the blocks."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
