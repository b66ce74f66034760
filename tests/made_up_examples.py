"""Examples as `collect_examples` writes them, of latents that are known to respond to one word each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

WORDS = tuple("apple river stone cloud bread chair light music paper horse glass green seven eight Wait".split())
LENGTH = 9


def window(rng: random.Random, trigger: str | None, avoid: str) -> tuple[list[str], list[float]]:
    """(tokens, activations): `trigger` in the middle and active wherever it stands; without one, free of `avoid`."""
    others = [word for word in WORDS if word != avoid]
    tokens = [f" {rng.choice(others)}" for _ in range(LENGTH)]
    if trigger is None:
        return tokens, [0.0] * LENGTH
    tokens[LENGTH // 2] = f" {trigger}"
    return tokens, [1.0 + rng.random() if token == f" {trigger}" else 0.0 for token in tokens]


def planted_rows(triggers: Sequence[str], layer: int = 3, per_kind: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Rows for `example_table.table_of`: latent number i fires on the word `triggers[i]` and nowhere else.

    `per_kind` strongest, as many of the quantiles (2 quantiles), and in the part `score` as many silent ones of each
    kind. Activations of a window's middle token fall with `place` for the strongest.
    """
    rng = random.Random(seed)
    rows = []
    for latent, trigger in enumerate(triggers):
        for part in ("choose", "score"):
            kinds = ["strongest", "quantile"] + (["random", "same_token", "neighbour"] if part == "score" else [])
            for kind in kinds:
                for place in range(per_kind):
                    fires = kind in ("strongest", "quantile")
                    tokens, activations = window(rng, trigger if fires else None, trigger)
                    rank = place if kind != "quantile" else place % 2
                    if fires:
                        activations[LENGTH // 2] = 3.0 - 0.1 * place if kind == "strongest" else 1.0 + rank
                    document = len(rows)
                    rows.append(
                        {
                            "layer": layer, "latent": latent, "part": part, "kind": kind, "place": rank,
                            "document": document, "problem": document, "position": 20 + LENGTH // 2,
                            "phase": ("prompt", "think", "answer")[latent % 3],
                            "value": activations[LENGTH // 2], "correct": (True, False, None)[place % 3],
                            "model": "base-distill", "start": 20, "tokens": tokens, "activations": activations,
                        }
                    )  # fmt: skip
    return rows
