"""How do a model's modules run compiled without any hook being lost?

A module is compiled from its `forward` on, so that its own hooks run outside, as they always do. Hooks on modules
inside it would become part of the compiled code, or be left out of it, so a module that has any runs as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch.nn import Module


def compiled_forwards(model: Any, place: Literal["block", "mlp"]) -> dict[Module, Callable]:
    """What each module may run instead of its `forward`: whole blocks, or, where hooks on their MLPs are wanted, the
    parts of each. Compiled when first called, once for all blocks and for each number of packed rows."""
    blocks = list(model.model.layers)
    modules = blocks if place == "block" else [part for block in blocks for part in block.children()]
    return {module: torch.compile(module.forward, dynamic=False) for module in modules}


@contextlib.contextmanager
def running(forwards: Mapping[Module, Callable]) -> Iterator[None]:
    """Inside, these modules run compiled, except where there is a hook inside one."""
    chosen = [module for module in forwards if not _has_hooks_inside(module)]
    for module in chosen:
        module.forward = forwards[module]
    try:
        yield
    finally:
        for module in chosen:
            del module.forward  # the one of its class comes back


def _has_hooks_inside(module: Module) -> bool:
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules() if part is not module)
