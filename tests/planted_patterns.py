"""Examples of latents that respond to more than one word: to what stands before, to a class, to a phase."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

VOCABULARY = tuple(
    " the, of, so, we, then, Anna, Ben, apples, cost, more, than,7,3,9, +, =, *,.,\n, Wait, is, in, a, by".split(",")
)
PHASES = ("prompt", "think", "answer")
LENGTH = 13


class Plant(NamedTuple):
    """A latent that fires where `rule(tokens, i, phase)` is true. `bait` is put into a firing window, `decoy` into a
    silent one of the kind `same_token`; `phase` is where it fires, None being anywhere."""

    rule: Callable[[Sequence[str], int, str], bool]
    bait: tuple[str, ...]
    decoy: tuple[str, ...]
    phase: str | None = None


PLANTS = {
    "token": Plant(lambda t, i, phase: t[i] == " Wait", (" Wait",), (" is",)),
    "previous": Plant(lambda t, i, phase: i > 0 and t[i - 1] == " =", (" =",), (" +",)),
    "class_after_token": Plant(lambda t, i, phase: i > 0 and t[i].isdigit() and t[i - 1] == " =", (" =",), (" +", "7")),
    "two_tokens": Plant(
        lambda t, i, phase: i > 1 and t[i - 2 : i] == [" more", " than"], (" more", " than"), (" than",)
    ),
    "phase": Plant(lambda t, i, phase: phase == "think" and t[i] == " so", (" so",), (" so",), "think"),
}


def window(rng: random.Random, plant: Plant, kind: str) -> tuple[list[str], list[float], str]:
    """(tokens, activations, phase), drawn until the latent fires, or is silent, as the kind of example says."""
    fires = kind in ("strongest", "quantile")
    while True:
        tokens = [rng.choice(VOCABULARY) for _ in range(LENGTH)]
        phase = plant.phase if fires and plant.phase else rng.choice(PHASES)
        put = plant.bait if fires else plant.decoy if kind == "same_token" else ()
        place = rng.randrange(LENGTH - len(put) - 1)
        tokens[place : place + len(put)] = put
        activations = [float(1 + rng.random()) if plant.rule(tokens, i, phase) else 0.0 for i in range(LENGTH)]
        if any(activations) == fires:
            return tokens, activations, phase


def planted_pattern_rows(plants: Sequence[Plant], layer: int = 2, per_kind: int = 12, seed: int = 0) -> list[dict]:
    """Rows for `example_table.table_of`, latent number i being `plants[i]`; no document twice."""
    rng, rows = random.Random(seed), []
    for latent, plant in enumerate(plants):
        for part in ("choose", "score"):
            kinds = ("strongest", "quantile") + (("random", "same_token", "neighbour") if part == "score" else ())
            for kind in kinds:
                for place in range(per_kind):
                    rows.append(_row(rng, plant, kind, place) | {"part": part, "layer": layer, "latent": latent})
    return [row | {"document": number, "problem": number} for number, row in enumerate(rows)]


def _row(rng: random.Random, plant: Plant, kind: str, place: int) -> dict[str, Any]:
    tokens, activations, phase = window(rng, plant, kind)
    return {
        "kind": kind, "place": place % 4 if kind == "quantile" else place, "position": 30, "phase": phase,
        "value": max(activations), "correct": None, "model": "base-distill", "start": 24, "tokens": tokens,
        "activations": activations,
    }  # fmt: skip
