"""Which sets of latents are tested, and which random ones are they compared with?

A random set counts as matched when, over the whole set, it carries nearly the activation mass, the firing rate in every
phase and the share of template firings of the set that it stands beside. Sets of weaker latents would do less anyway.

Source: docs/methods.md §5.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

TOP_DELTA, TOP_NU = "top_delta", "top_nu"
_MOST_SWAPS = 3000


class NotTestable(Exception):
    """A set cannot be compared; the message says why, in words for a table."""


def top_sets(latents: pd.DataFrame, size: int) -> dict[str, Int[np.ndarray, " member"]]:
    """{name: latents} of the sets that are said to be the reasoning model's own: the live latents of smallest Delta
    (`top_delta`), and those specific to that model by latent scaling, of smallest error ratio (`top_nu`). At most
    `size` each, none of them leaning to the base; empty where there is none."""
    live = latents[(latents["tag"] != "dead") & (latents["delta"] < 0.5)]
    specific = live[live["scaling"] == "specific"]
    return {
        TOP_DELTA: live.nsmallest(size, "delta")["latent"].to_numpy(),
        TOP_NU: specific.nsmallest(size, "nu_error")["latent"].to_numpy(),
    }


def profile(latents: pd.DataFrame) -> Float[np.ndarray, "latent quantity"]:
    """What adds up over a set, latent by latent: activation mass per token, the firing rate in each phase that occurs,
    and firings on template tokens per token; `quantities` names them."""
    return np.stack([values for _, values in _quantities(latents)], axis=1)


def quantities(latents: pd.DataFrame) -> list[str]:
    """Names of the columns of `profile`."""
    return [name for name, _ in _quantities(latents)]


def _quantities(latents: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    found = [("activation mass", (latents["rate"] * latents["mean_activation"]).to_numpy(float))]
    phases = [name for name in latents if name.startswith("rate_") and latents[name].notna().any()]
    found += [
        (f"firing rate in {name.removeprefix('rate_')}", latents[name].fillna(0).to_numpy(float)) for name in phases
    ]
    return [*found, ("template firings", (latents["rate"] * latents["template_share"]).to_numpy(float))]


def matched_random(
    latents: pd.DataFrame, members: Int[np.ndarray, " member"], draws: int, tolerance: float, seed: int
) -> list[Int[np.ndarray, " member"]]:
    """`draws` different sets as large as `members`, of other live latents, each of whose totals in `profile` differs
    from that of `members` by `tolerance` of it or less (of its whole firing, for template firings).

    Each begins as a random draw; then latents are exchanged, one at a time, while that brings the totals nearer.

    Raises:
        NotTestable: too few other live latents, or no such sets among them.
    """
    live = latents[latents["tag"] != "dead"]
    others = live[~live["latent"].isin(members)]
    if len(others) < 2 * len(members):
        raise NotTestable(
            f"{len(others)} other live latents to draw {len(members)} from, expected {2 * len(members)} or more"
        )
    chosen = live[live["latent"].isin(members)]
    target, allowed = _target(chosen, tolerance)
    random, found = np.random.default_rng(seed), {}
    candidates = profile(others)
    for _ in range(5 * draws):
        picked, worst = _search(candidates, target, allowed, len(chosen), random)
        if worst <= 1:
            found.setdefault(tuple(sorted(picked)), picked)
        if len(found) == draws:
            return [others["latent"].to_numpy()[list(key)] for key in found]
    off = _distance(candidates[picked].sum(0), target, allowed)
    raise NotTestable(
        f"{len(found)} of {draws} matched random sets found: {quantities(latents)[int(off.argmax())]} of random sets "
        f"stays {off.max() * tolerance:.0%} away, allowed are {tolerance:.0%}"
    )


def _target(chosen: pd.DataFrame, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """(totals of a set, how far each may be missed)."""
    total = profile(chosen).sum(0)
    allowed = tolerance * total
    allowed[-1] = tolerance * chosen["rate"].sum()  # template firings, as a share of all of the set's
    return total, np.maximum(allowed, 1e-12)


def _distance(totals: np.ndarray, target: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """In units of what is allowed."""
    return np.abs(totals - target) / allowed


def _search(
    candidates: Float[np.ndarray, "candidate quantity"],
    target: Float[np.ndarray, " quantity"],
    allowed: Float[np.ndarray, " quantity"],
    size: int,
    random: np.random.Generator,
) -> tuple[Int[np.ndarray, " member"], float]:
    """(places of a set among the candidates, its largest distance to the target)."""
    picked = random.choice(len(candidates), size, replace=False)
    total = candidates[picked].sum(0)
    worst = _distance(total, target, allowed).max()
    for _ in range(_MOST_SWAPS):
        if worst <= 1:
            break
        slot = random.integers(size)
        free = np.setdiff1d(np.arange(len(candidates)), picked)
        without = total - candidates[picked[slot]]
        distances = _distance(without + candidates[free], target, allowed).max(1)
        better = np.flatnonzero(distances < worst)
        if len(better):
            # one of the better ones, not always the best: sets would be alike
            taken = better[np.argsort(distances[better])[: max(1, len(better) // 4)]]
            place = free[random.choice(taken)]
            picked[slot], total = place, without + candidates[place]
            worst = _distance(total, target, allowed).max()
    return picked, float(worst)
