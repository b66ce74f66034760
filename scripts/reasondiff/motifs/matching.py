"""Which graphs of two groups are compared with which?

Source: docs/methods.md §12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from reasondiff.motifs.measures import Measured


@dataclass(frozen=True)
class Group:
    """Graphs of one source."""

    name: str
    """How tables call it."""
    source: str
    targets: tuple[str, ...] | None
    """The names of their targets; None: all."""


@dataclass(frozen=True)
class Couples:
    """Graphs of two groups couple by couple and, where the null is a difference of two others, those beside them."""

    prompts: np.ndarray
    """The prompt of each couple."""
    first: Float[np.ndarray, "couple measure"]
    second: Float[np.ndarray, "couple measure"]
    null_first: Float[np.ndarray, "couple measure"]
    """NaN where there is no null, or no such graph."""
    null_second: Float[np.ndarray, "couple measure"]
    expected: Float[np.ndarray, " measure"]
    """How often the null model expects a motif, mean over the graphs of both groups; NaN of other measures."""


@dataclass(frozen=True)
class ByPrompt:
    """Means over the couples of each prompt; NaN where a prompt has no couple with both values."""

    first: Float[np.ndarray, "prompt measure"]
    second: Float[np.ndarray, "prompt measure"]
    null: Float[np.ndarray, "prompt measure"]
    """Difference of the null's two, over couples that have all four."""
    beside_null: Float[np.ndarray, "prompt measure"]
    """first - second over the same couples as `null`."""

    @property
    def difference(self) -> Float[np.ndarray, "prompt measure"]:
        return self.first - self.second


def graphs_of(measured: Measured, group: Group) -> pd.DataFrame:
    """The rows of `measured.graphs` in a group, with the column `row`, their number."""
    graphs = measured.graphs.assign(row=np.arange(len(measured.graphs)))
    asked = True if group.targets is None else graphs["target"].isin(group.targets)
    return graphs[(graphs["source"] == group.source) & asked]


def couple(
    measured: Measured, first: Group, second: Group, null: tuple[Group, Group] | None, on: list[str]
) -> pd.DataFrame:
    """One row per couple: `on`, and the numbers of rows in `measured`, `first`, `second`, `null_first` and
    `null_second` (-1 where there is no such graph)."""
    rows = {"first": first, "second": second}
    rows |= {"null_first": null[0], "null_second": null[1]} if null else {}
    joined: pd.DataFrame | None = None
    for name, group in rows.items():
        side = graphs_of(measured, group)[[*on, "row"]].rename(columns={"row": name})
        how = "left" if name.startswith("null") else "inner"
        joined = side if joined is None else joined.merge(side, on=on, how=how)
    for name in ("null_first", "null_second"):
        joined[name] = joined[name].fillna(-1).astype(int) if name in joined else -1
    return joined.sort_values([*on, *rows], kind="stable", ignore_index=True)


def within_caliper(measured: Measured, couples: pd.DataFrame, length_factor: float, entropy_nats: float) -> np.ndarray:
    """True for couples whose contexts differ by at most `length_factor` in their number of tokens and whose targets
    differ by at most `entropy_nats` in entropy (infinite: any)."""
    facts = measured.graphs[["context_tokens", "entropy"]].to_numpy(dtype=np.float64)
    first, second = facts[couples["first"]], facts[couples["second"]]
    length = np.abs(np.log(first[:, 0]) - np.log(second[:, 0])) <= np.log(length_factor) + 1e-9
    return length & (np.isinf(entropy_nats) | (np.abs(first[:, 1] - second[:, 1]) <= entropy_nats))


def with_values(measured: Measured, couples: pd.DataFrame) -> Couples:
    """The couples with the measures of their graphs; the last column is ln(edges)."""
    table = np.column_stack([measured.values.to_numpy(np.float64), measured.graphs["log_edges"].to_numpy(np.float64)])
    padded = np.concatenate([table, np.full((1, table.shape[1]), np.nan)])  # row -1: no such graph
    sides = {name: padded[couples[name].to_numpy()] for name in ("first", "second", "null_first", "null_second")}
    both = np.unique(couples[["first", "second"]].to_numpy().ravel())
    expected = measured.expected.iloc[both].mean().reindex(measured.values.columns).to_numpy(dtype=np.float64)
    return Couples(prompts=couples["prompt_id"].to_numpy(), expected=np.append(expected, np.nan), **sides)


def by_prompt(couples: Couples) -> ByPrompt:
    """Each prompt's means, prompts in the order of their names."""
    both = np.isfinite(couples.first) & np.isfinite(couples.second)
    null = couples.null_first - couples.null_second
    all_four = both & np.isfinite(null)

    def mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
        return pd.DataFrame(np.where(known, values, np.nan)).groupby(couples.prompts, sort=True).mean().to_numpy()

    return ByPrompt(
        first=mean(couples.first, both),
        second=mean(couples.second, both),
        null=mean(null, all_four),
        beside_null=mean(couples.first - couples.second, all_four),
    )
