"""Where is the MLP of a block, and what happens when something else takes its place?

An MLP's input is what it receives, after the block's norm; its output is what it adds to the residual stream.

Source: docs/methods.md §6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reasondiff.models.load import ModelError

# Architectures whose blocks add `mlp(norm(residual))` to the residual stream, and where the MLP is in a block. To add
# one, check that this holds (no norm after the MLP, none left out before it) and write its line.
MLPS = {
    "LlamaForCausalLM": "mlp",
    "MistralForCausalLM": "mlp",
    "Qwen2ForCausalLM": "mlp",
    "Qwen3ForCausalLM": "mlp",
}

Replacement = Callable[[Float[Tensor, "token unit"], Float[Tensor, "token unit"]], Float[Tensor, "token unit"]]
"""(MLP input, MLP output) of some tokens -> the output that takes its place."""

Mask = Bool[Tensor, "row position"]
Where = Mask | Callable[[int], Mask] | None
"""The tokens whose MLP outputs are replaced: a mask for all layers, or a function of the layer, asked anew in each
forward pass; None: all tokens."""


def find_mlp(model: Any, layer: int) -> nn.Module:
    """The MLP of a block (counted from 0).

    Raises:
        ModelError: the architecture is not among those whose MLPs are known.
    """
    architecture = type(model).__name__
    if architecture not in MLPS:
        raise ModelError(
            f"the MLPs of {architecture} are not known. Transcoders work on {', '.join(MLPS)}; to add an architecture, "
            "write where a block's MLP is into MLPS in scripts/reasondiff/models/mlp.py"
        )
    return model.model.layers[layer].get_submodule(MLPS[architecture])


@contextlib.contextmanager
def replaced_mlps(model: Any, replacements: Mapping[int, Replacement], where: Where = None) -> Iterator[None]:
    """Inside, each MLP in `replacements` gives what its function makes of its input and output, on the tokens marked
    in `where`. All other MLPs and tokens stay the model's own.

    Each MLP reads what the replaced layers below it led to.
    """
    handles = [
        find_mlp(model, layer).register_forward_hook(_replacing(layer, replacement, where))
        for layer, replacement in replacements.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replacing(layer: int, replacement: Replacement, where: Where) -> Callable:
    """A forward hook that puts `replacement` in the place of an MLP's output."""

    def replace(_module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        chosen = where(layer) if callable(where) else where
        if chosen is None:
            chosen = torch.ones(output.shape[:-1], dtype=torch.bool, device=output.device)
        changed = output.clone()
        changed[chosen] = replacement(arguments[0][chosen], output[chosen]).to(output.dtype)
        return changed

    return replace
