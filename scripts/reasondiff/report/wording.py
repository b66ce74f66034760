"""How are figures, intervals and sample sizes put into words?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

Number = float | int | np.number
FEW = "n < 6"
NULL = "not distinguishable from the null"
ONE_CHAIN = "one chain, not retrained"


def is_missing(value: object) -> bool:
    """None, NaN and NA alike."""
    return value is None or bool(value != value)


def number(value: Number, digits: int = 3) -> str:
    """Three significant digits, thousands grouped; a dash for nothing."""
    if is_missing(value):
        return "–"
    if float(value).is_integer() and abs(value) >= 1:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def decimals(value: Number, places: int = 3) -> str:
    """A fixed number of decimals, for columns that are read downwards."""
    return "–" if is_missing(value) else f"{value:.{places}f}".replace("-", "−")


def percent(value: Number, places: int = 1) -> str:
    """0.123 as `12.3 %`."""
    return "–" if is_missing(value) else f"{100 * value:.{places}f} %".replace("-", "−")


def points(value: Number) -> str:
    """A difference of shares, in percentage points with its sign: `+3.1 points`."""
    return "–" if is_missing(value) else f"{100 * value:+.1f} points".replace("-", "−")


def interval(low: Number, high: Number, scale: Number = 1, places: int = 3) -> str:
    """`0.1 to 0.2`; says so where there were too few units for one."""
    if is_missing(low) or is_missing(high):
        return FEW
    return f"{scale * low:.{places}f} to {scale * high:.{places}f}".replace("-", "−")


def share_of(count: Number, total: Number, low: Number, high: Number) -> str:
    """`107 of 342 (31.3 %, 26.6 to 36.4)`."""
    if not total:
        return f"{int(count)} of 0"
    return f"{int(count):,} of {int(total):,} ({percent(count / total)}, {interval(low, high, 100, 1)})"


def direction(low: Number, high: Number, up: str, down: str, neither: str) -> str:
    """Which of three words an interval of a change allows; `neither` where there is none or it holds 0."""
    if not math.isnan(low) and low > 0:
        return up
    return down if not math.isnan(high) and high < 0 else neither


def ends(numbers: Iterable[Number], shown: Callable[[Number], str]) -> str:
    """The smallest and the largest number that is known, or the one that all are: `0.1 to 0.4`."""
    known = [one for one in numbers if not is_missing(one)]
    if not known:
        return "–"
    smallest, largest = shown(min(known)), shown(max(known))
    return smallest if smallest == largest else f"{smallest} to {largest}"


def runs(numbers: Iterable[int]) -> str:
    """Whole numbers in order, three or more in a row shortened: `0 to 3, 5 and 7`."""
    found: list[list[int]] = []
    for one in sorted(numbers):
        if found and one == found[-1][-1] + 1:
            found[-1].append(one)
        else:
            found.append([one])
    words = [[f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(one) for one in run] for run in found]
    return listed(word for run in words for word in run)


def listed(things: Iterable[object]) -> str:
    """`a, b and c`."""
    words = [str(thing) for thing in things]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
