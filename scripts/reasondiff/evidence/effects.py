"""How large is the effect of a set beside sets like it, and how sure is that?

Every figure is a ratio of sums over problems; the interval of a set's excess over its random sets resamples problems,
the same ones for all of them.

Source: docs/methods.md §5; Besag and Clifford 1989 for p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from reasondiff.dictionaries.spliced_losses import LOSSES
from reasondiff.evidence.patching import ABLATED, NOTHING, PATCHED
from reasondiff.statistics import Estimate, bootstrap

COLUMNS = [
    "direction", "set", "phase", "quantity", "value", "value_low", "value_high", "random_mean", "random_low",
    "random_high", "excess", "excess_low", "excess_high", "p", "n_random", "size", "n_problems", "n_tokens", "status",
]  # fmt: skip
MEASURED = {PATCHED: ("kl_removed", "kl_nats"), ABLATED: ("kl_nats", "ce_increase_nats")}
"""`kl_removed`: the share of KL(reasoning || base's activations) that a patch takes away, 1 for all of it."""

Sums = Float[np.ndarray, "problem phase quantity"]


def effect_rows(
    sums: Mapping[tuple[str, str], Sums],
    phases: Sequence[str],
    matched: Mapping[str, Sequence[str] | str],
    sizes: Mapping[str, int],
    resamples: int,
    seed: int,
    min_problems: int,
) -> pd.DataFrame:
    """One row per direction, set, phase and quantity; random sets stand beside the set that they are matched to.

    `matched`: for each tested set the names of its random sets, or why there are none. `p` is one-sided, the share of
    random sets that do at least as much, the set itself among them; the excess is the set's value less the mean of its
    random sets'. Without random sets, or below `min_problems` problems, `status` says why and the figures are NaN.
    """
    random = {name for names in matched.values() if not isinstance(names, str) for name in names}
    rows = []
    for (direction, name), total in sums.items():
        if name in random:
            continue
        beside = matched.get(name, ())
        for index, phase in enumerate(phases):
            own = total[:, index]
            if not own[:, -1].any():
                continue
            reference = sums[PATCHED, NOTHING][:, index]
            others = [] if isinstance(beside, str) else [sums[direction, other][:, index] for other in beside]
            for quantity in MEASURED[direction]:
                row = {"direction": direction, "set": name, "phase": phase, "quantity": quantity}
                row |= {"size": sizes.get(name, np.nan), "n_tokens": int(own[:, -1].sum())}
                figures = _figures(quantity, own, reference, others, resamples, seed, min_problems)
                said = {"status": beside} if isinstance(beside, str) else {}
                rows.append(row | figures | said)
    return pd.DataFrame(rows, columns=COLUMNS)


def _figures(
    quantity: str,
    own: np.ndarray,
    reference: np.ndarray,
    others: list[np.ndarray],
    resamples: int,
    seed: int,
    least: int,
) -> dict[str, float | int | str]:
    parts = [own, reference, *others]
    stacked = np.concatenate(parts, axis=1)  # (problem, set and quantity)

    def of(columns: np.ndarray, which: int) -> np.ndarray:
        """The quantity of one part in sums [resample, set and quantity]."""
        width = len(LOSSES)
        kl, before, after, targets = columns[:, which * width : (which + 1) * width].T
        if quantity == "ce_increase_nats":
            return (after - before) / targets
        if quantity == "kl_nats":
            return kl / targets
        return 1 - kl / columns[:, width]  # the reference's KL

    def estimate(figure) -> Estimate:
        return bootstrap(stacked, figure, resamples, seed, least)

    value = estimate(lambda columns: of(columns, 0))
    found: dict[str, float | int | str] = {"value": value.value, "value_low": value.low, "value_high": value.high}
    found |= {"n_problems": value.n, "n_random": len(others), "status": "tested" if others else "beside"}
    if value.n < least:
        found["status"] = f"not testable: {value.n} problems, expected {least} or more"
    if not others:
        return found
    numbers = range(2, len(parts))
    mean = lambda columns: np.mean([of(columns, number) for number in numbers], axis=0)  # noqa: E731
    alone = np.array([of(stacked.sum(0, keepdims=True), number)[0] for number in numbers])
    excess = estimate(lambda columns: of(columns, 0) - mean(columns))
    found |= {"random_mean": float(alone.mean()), "random_low": float(alone.min()), "random_high": float(alone.max())}
    found |= {"excess": excess.value, "excess_low": excess.low, "excess_high": excess.high}
    return found | {"p": float(((alone >= value.value).sum() + 1) / (len(alone) + 1))}
