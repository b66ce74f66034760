"""Which live latent of the same layer writes most nearly the same as a latent?"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

LATENTS_AT_ONCE = 2048
NONE = -1


def nearest_neighbours(
    directions: Float[Tensor, "latent out"], live: Bool[np.ndarray, " latent"]
) -> tuple[Int[np.ndarray, " latent"], Float[np.ndarray, " latent"]]:
    """(neighbour, cosine of the decoder rows) of each live latent among the other live ones; -1 and NaN for dead
    latents and where there is no other."""
    neighbour = np.full(len(live), NONE, dtype=np.int64)
    cosine = np.full(len(live), np.nan, dtype=np.float32)
    numbers = np.flatnonzero(live)
    if len(numbers) < 2:
        return neighbour, cosine
    rows = F.normalize(directions[torch.from_numpy(numbers).to(directions.device)].float(), dim=1)
    for first in range(0, len(rows), LATENTS_AT_ONCE):
        cosines = rows[first : first + LATENTS_AT_ONCE] @ rows.T  # (latent, other)
        own = torch.arange(len(cosines), device=rows.device)
        cosines[own, first + own] = -torch.inf
        best, other = cosines.max(dim=1)
        here = numbers[first : first + LATENTS_AT_ONCE]
        neighbour[here], cosine[here] = numbers[other.cpu().numpy()], best.cpu().numpy()
    return neighbour, cosine
