"""What are the activations of an MLP's own neurons, the units between its two layers of weights?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor

from reasondiff.models.load import ModelError
from reasondiff.models.mlp import find_mlp

LAST = "down_proj"  # in all architectures of `mlp.MLPS` the layer that reads the neurons


@contextlib.contextmanager
def recorded_neurons(model: Any, layer: int) -> Iterator[dict[int, Float[Tensor, "row position neuron"]]]:
    """Inside, the dictionary holds the neurons of a layer's MLP in the last forward pass, under the layer's number.

    Raises:
        ModelError: the MLP is of another kind.
    """
    mlp, found = find_mlp(model, layer), {}
    if not hasattr(mlp, LAST):
        raise ModelError(f"the MLP of {type(model).__name__} has no {LAST}: where its neurons are is not known")

    def keep(_module: Any, arguments: tuple) -> None:
        found[layer] = arguments[0]

    handle = getattr(mlp, LAST).register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
