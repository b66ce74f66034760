"""What do all figures share: colours that colour-blind readers can tell apart, type, and equal bytes for equal data?

Colours are Okabe and Ito's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TAG_COLOURS = {"reasoning_only": "#D55E00", "base_only": "#0072B2", "shared": "#009E73", "other": "#9AA0A6"}
TAG_WORDS = {"reasoning_only": "reasoning only", "base_only": "base only", "shared": "shared", "other": "other"}
CONTROL_COLOUR = "#333333"
SERIES = ("#0072B2", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#000000", "#9AA0A6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GRID = "#E3E6EA"
MANY = 3000  # points of a scatter plot from which on it is drawn as an image inside the SVG

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8A9099",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": "#4A4F57",
    "ytick.color": "#4A4F57",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 130,
    "svg.fonttype": "none",  # text stays text: searchable, and no fonts are embedded
}


@contextlib.contextmanager
def styled(name: str) -> Iterator[None]:
    """Drawing and saving inside are the same bytes each time; `name` keeps the ids of different figures apart."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        yield


def to_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`, without date and version."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def panels(
    rows: int, columns: int, width: float | int, height: float | int, **sharing: str
) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` axes, each `width` x `height` inches; axes as a two-dimensional array.

    No pyplot: nothing global is left behind.
    """
    figure = Figure(figsize=(width * columns, height * rows))
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def nothing_to_show(why: str) -> Figure:
    """A figure that says why it is empty."""
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, why, ha="center", va="center", color="#4A4F57")
    return figure


Numbers = Sequence[float | int] | pd.Series


def dots_with_intervals(axes: Axes, at: Numbers, value: Numbers, low: Numbers, high: Numbers, **style: object) -> None:
    """Dots at (value, at) with horizontal intervals; no line where there is no interval."""
    axes.errorbar(value, at, xerr=_reach(value, low, high), linestyle="none", elinewidth=1.2, capsize=0, **style)


def dots_with_upright_intervals(
    axes: Axes, at: Numbers, value: Numbers, low: Numbers, high: Numbers, **style: object
) -> None:
    """Dots at (at, value) with vertical intervals; no line where there is no interval."""
    axes.errorbar(at, value, yerr=_reach(value, low, high), linestyle="none", elinewidth=1.2, capsize=0, **style)


def _reach(value: Numbers, low: Numbers, high: Numbers) -> np.ndarray:
    value, low, high = (np.asarray(numbers, dtype=float) for numbers in (value, low, high))
    return np.nan_to_num(np.stack([value - low, high - value])).clip(min=0)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows named from the top down, with a little room at both ends."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
