"""What is a page made of? Paragraphs, findings, tables, figures and things to unfold, all without markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from reasondiff.report.wording import Number, interval, is_missing, number


@dataclass(frozen=True)
class Cell:
    """What a table shows, what it sorts by, and how it looks: `pass`, `fail`, `not-testable` (as a badge, with `more`
    below it), `number`, `name` (neither is broken over lines), `mono` or `quiet`."""

    text: str
    sort: Number | str | None = ""
    look: str = ""
    more: str = ""


@dataclass(frozen=True)
class Column:
    """A heading, a function from a row to its cell, and a hint for the heading."""

    title: str
    cell: Callable[[object], Cell]
    hint: str = ""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    name: str
    svg: str
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Paragraph:
    """`look`: empty, `note` (small) or `banner`."""

    text: str
    look: str = ""
    kind: str = "paragraph"


@dataclass(frozen=True)
class Finding:
    """One claim: what it is about, the sentence, the control's figure, the sample, and what it does not say."""

    about: str
    sentence: str
    control: str
    sample: str
    caution: str = ""
    table: Table | None = None
    kind: str = "finding"


@dataclass(frozen=True)
class Quote:
    """A generated text with a line on where it is from."""

    about: str
    text: str
    kind: str = "quote"


@dataclass(frozen=True)
class Details:
    summary: str
    blocks: Sequence[object]
    is_open: bool = False
    kind: str = "details"


@dataclass(frozen=True)
class Links:
    """(words, where they lead) below each other."""

    links: Sequence[tuple[str, str]]
    kind: str = "links"


@dataclass(frozen=True)
class Browser:
    """The latent browser; `data` is JSON that may stand in a script element (`store.as_script`). One a page."""

    data: str
    kind: str = "browser"


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[object] = field(default_factory=list)


def table(caption: str, frame: pd.DataFrame, columns: Sequence[Column]) -> Table:
    """A table with a row for each row of `frame`, in its order."""
    return Table(caption, columns, [[column.cell(row) for column in columns] for row in frame.itertuples(index=False)])


def words(title: str, name: str, hint: str = "", look: str = "") -> Column:
    """A column of words from the frame's column `name`; empty where missing."""

    def cell(row: object) -> Cell:
        value = getattr(row, name)
        return Cell("" if is_missing(value) else str(value), "" if is_missing(value) else str(value), look)

    return Column(title, cell, hint)


def figures(title: str, name: str, shown: Callable[[Number], str], hint: str = "") -> Column:
    """A column of numbers, put into words by `shown`."""
    return Column(title, lambda row: number_cell(getattr(row, name), shown), hint)


def number_cell(value: Number | None, shown: Callable[[Number], str]) -> Cell:
    """A number as `shown` says it; missing ones sort first."""
    return Cell(shown(value), "" if is_missing(value) else float(value), "number")


def with_interval(title: str, name: str, places: int = 3, scale: Number = 1, hint: str = "") -> Column:
    """`value (low to high)` from the columns `name`, `name_low`, `name_high`."""

    def cell(row: object) -> Cell:
        value = getattr(row, name)
        if is_missing(value):
            return Cell("–", "", "number")
        ends = interval(getattr(row, f"{name}_low"), getattr(row, f"{name}_high"), scale, places)
        return Cell(f"{scale * value:.{places}f}".replace("-", "−") + f" ({ends})", float(value), "number")

    return Column(title, cell, hint)


def two_counts(title: str, first: str, second: str) -> Column:
    """`291 (58,491)`: two sample sizes in one column."""

    def cell(row: object) -> Cell:
        one = getattr(row, first)
        return Cell(f"{number(one)} ({number(getattr(row, second))})", "" if is_missing(one) else float(one), "number")

    return Column(title, cell)
