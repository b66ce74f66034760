"""Which latents of a dictionary does one look at first?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from reasondiff.latents.counts import LEANING_DELTA

SIDES = ("reasoning", "base", "shared", "any")


def ranked(latents: pd.DataFrame, side: str, rows: int) -> pd.DataFrame:
    """At most `rows` live latents of one dictionary, first the one to look at first.

    `side`: `reasoning` (lowest Delta first; only Delta < 0.3), `base` (highest first; only > 0.7), `shared` (by
    activation mass) or `any` (by activation mass, whatever the tag; for transcoders, whose latents have none). Ties
    go to the lower latent number. A table without the column `tag` counts as live where it fires (`firings`).

    Raises:
        ValueError: another side.
    """
    if side not in SIDES:
        raise ValueError(f"expected one of the sides {', '.join(SIDES)}, came {side!r}")
    live = latents[latents["tag"] != "dead"] if "tag" in latents else latents[latents["firings"] > 0]
    if side in ("shared", "any"):
        chosen = live[live["tag"] == "shared"] if side == "shared" else live
        order = -activation_mass(chosen)
    elif side == "reasoning":
        chosen = live[live["delta"] < LEANING_DELTA]
        order = chosen["delta"].to_numpy()
    else:
        chosen = live[live["delta"] > 1 - LEANING_DELTA]
        order = -chosen["delta"].to_numpy()
    return chosen.iloc[np.lexsort((chosen["latent"], order))[:rows]]


def activation_mass(latents: pd.DataFrame) -> np.ndarray:
    """Mean activation per token, those on which the latent is silent included: rate times mean activation."""
    return (latents["rate"] * latents["mean_activation"]).to_numpy(dtype=np.float64)
