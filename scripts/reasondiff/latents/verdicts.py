"""May a latent be called absent from the other model?

Two things must agree: latent scaling finds nothing along the latent's direction, and the other model's activations do
not tell where the latent fires. With only the first, the other model may hold the same thing in another direction.

Source: docs/methods.md §4.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

REPLICATED, NOT_REPLICATED, NOT_TESTABLE = "replicated", "not_replicated", "not_testable"
"""Whether a latent came back in the dictionaries of all other seeds."""
ABSENT, WRITTEN_DIFFERENTLY, UNDETERMINED = "not in the other model", "written differently", "undetermined"
IN_BOTH = "in both"
DECODABLE = 0.75
"""AUROC from which a latent counts as decodable from a model's activations (0.5: chance, 1: always)."""


def verdicts(latents: pd.DataFrame) -> np.ndarray:
    """One verdict per row of a latent table, as an object array.

    `in both` for the tag `shared`; `undetermined` where latent scaling or decodability is, where the latent is dead,
    and where not even the owner's activations reach `DECODABLE` (then a low figure for the other says nothing);
    `not in the other model` with scaling `specific` and the other's AUROC below `DECODABLE`; else `written
    differently`.
    """
    other, owner = latents["auroc_other"].to_numpy(float), latents["auroc_owner"].to_numpy(float)
    scaling = latents["scaling"].to_numpy()
    named = np.full(len(latents), WRITTEN_DIFFERENTLY, dtype=object)
    named[(scaling == "specific") & (other < DECODABLE)] = ABSENT
    unsure = (scaling == "undetermined") | np.isnan(other) | ~(owner >= DECODABLE)
    named[unsure | (latents["tag"] == "dead").to_numpy()] = UNDETERMINED
    named[(latents["tag"] == "shared").to_numpy()] = IN_BOTH
    return named
