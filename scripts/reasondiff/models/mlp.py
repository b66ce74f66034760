"""Where is the MLP of a block, and what happens when something else takes its place?

An MLP's input is what it receives, after the block's norm; its output is what it adds to the residual stream.

Source: docs/methods.md §6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
def replaced_mlps(
    model: Any, replacements: Mapping[int, Replacement], where: Bool[Tensor, "row position"] | None = None
) -> Iterator[None]:
    """Inside, each MLP in `replacements` gives what its function makes of its input and output, on the tokens marked
    in `where` (None: on all tokens of all forward passes). All other MLPs and tokens stay the model's own.

    Each MLP reads what the replaced layers below it led to.
    """

    def hook(replacement: Replacement) -> Callable:
        def replace(_module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
            chosen = ... if where is None else where
            given = arguments[0][chosen].reshape(-1, output.shape[-1])
            own = output[chosen].reshape(-1, output.shape[-1])
            changed = output.clone()
            changed[chosen] = replacement(given, own).to(output.dtype).view_as(output[chosen])
            return changed

        return replace

    handles = [
        find_mlp(model, layer).register_forward_hook(hook(replacement)) for layer, replacement in replacements.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
