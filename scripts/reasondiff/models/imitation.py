"""What does a model answer when functions imitate its MLPs?

Losses on given text do not show what happens when a model goes on from its own words: each token is read by the
imitations that wrote it.

Source: docs/methods.md §6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor, nn

from reasondiff.config import Accuracy
from reasondiff.models.load import ModelInfo, load_model, load_tokenizer
from reasondiff.models.mlp import Mask, replaced_mlps
from reasondiff.models.responses import accuracy_table

Imitation = Callable[[Float[Tensor, "token unit"]], Float[Tensor, "token unit"]]
"""Inputs of an MLP -> what takes the place of its outputs."""


def compare_answers(
    info: ModelInfo,
    problems: pd.DataFrame,
    settings: Accuracy,
    elicitations: Sequence[str],
    imitations: Mapping[int, Imitation],
    problems_asked: int,
    device: str,
    dtype: str,
    first_positions: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(accuracy table, responses) of a model with its own MLPs and with `imitations` in the place of those of some
    layers: `mlps` is `own` or `transcoders`. Greedy, on the same held-out problems of seen families.

    The problems are among those of `models.accuracy`, drawn by the same seed. The first positions of a prompt keep
    the model's own MLPs, as in evaluation: no imitation learnt them.
    """
    seen = problems[~problems["held_out_family"]]
    asked = seen.sample(min(problems_asked, len(seen)), random_state=settings.seed, ignore_index=True)
    model, tokenizer = load_model(info, device, dtype), load_tokenizer(info.folder)
    ways = {"own": contextlib.nullcontext(), "transcoders": imitated_mlps(model, imitations, first_positions)}
    tables, responses = [], []
    for name, way in ways.items():
        with way:
            results = accuracy_table(
                model, tokenizer, asked, elicitations, {"greedy": 0.0}, 1, settings.seed, settings.max_new_tokens,
                settings.batch_size,
            )  # fmt: skip
        for found, frame in zip((tables, responses), results, strict=True):
            frame.insert(0, "model", info.name)
            frame.insert(1, "mlps", name)
            found.append(frame)
    return pd.concat(tables, ignore_index=True), pd.concat(responses, ignore_index=True)


@contextlib.contextmanager
def imitated_mlps(model: Any, imitations: Mapping[int, Imitation], first_positions: int) -> Iterator[None]:
    """Inside, `imitations` take the place of MLPs in every forward pass, also in those that go on from a cache, but
    for padding and the first positions of each row (counted from its first real token)."""
    places: dict[str, Mask] = {}

    def find_places(_model: nn.Module, _arguments: tuple, given: dict[str, Any]) -> None:
        positions = given["position_ids"]
        real = given["attention_mask"][:, -positions.shape[1] :].bool()  # the mask covers the cache as well
        places["imitated"] = real & (positions >= first_positions)

    replacements = {layer: _of_input(imitation) for layer, imitation in imitations.items()}
    handle = model.register_forward_pre_hook(find_places, with_kwargs=True)
    try:
        with replaced_mlps(model, replacements, lambda _layer: places["imitated"]):
            yield
    finally:
        handle.remove()


def _of_input(imitation: Imitation) -> Callable[[Tensor, Tensor], Tensor]:
    """An imitation as a replacement, which is shown the MLP's own output too."""
    return lambda x, _own: imitation(x)
