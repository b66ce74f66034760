"""Which sweep point is trained on all layers, and why?

The sparsest that is good enough. A point qualifies when every pilot layer passes the limits; of the qualified points on
the Pareto front of CE recovered and L0 the one with the smallest L0 is taken. What lies within an interval is a tie.

Source: docs/methods.md §6.
"""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from reasondiff.config import ConfigError, TranscoderGates

ALL = "all"  # the row of a point for its pilot layers together
JUDGED_BY = {  # {column of the sweep, and its limit in the gates: how a figure reads}
    "ce_increase_nats": "CE rises by {:.3f} nats",
    "dead_share": "{:.1%} of latents are dead",
    "dense_share": "{:.1%} of latents are dense",
}


def choose_point(
    sweep: pd.DataFrame | None, gates: TranscoderGates, named: str | None, unqualified: Literal["stop", "best"]
) -> dict[str, Any]:
    """`point`, `how` it was chosen, whether it is `qualified`, the `reason` in words, the `front` of the points that
    could be chosen (sparsest first), and for each `refused` point why it does not qualify.

    A point `named` in the config is taken whatever the sweep says. Where none qualifies, the front is that of all.

    Raises:
        ConfigError: no point qualifies and `unqualified` is `stop`, or there is nothing to judge the points by.
    """
    if sweep is None or not len(sweep):
        if named is None:
            raise ConfigError("transcoders: without a sweep there is nothing to choose from; name the `point` to train")
        return _choice(named, "config", False, f"{named} is named in the config; no sweep was run to judge it", [], {})
    sweep = sweep.astype({"point": str, "layer": str})  # a file's columns of digits come back as numbers
    refused = _refusals(sweep, gates)
    together = sweep[sweep["layer"] == ALL].set_index("point")
    passed = together.drop(index=list(refused))
    front = _front(passed if len(passed) else together)
    if named is not None:
        reason = f"{named} is named in the config{_figures_of(named, together)}. {_would_choose(passed, together)}"
        return _choice(named, "config", named in passed.index, reason, front, refused)
    if len(passed):
        return _choice(front[0], "sweep", True, _why_sparsest(front[0], passed), front, refused)
    best = _best(together)
    if unqualified == "stop" or best is None:
        raise ConfigError(_none_qualifies(refused))
    reason = f"no point qualifies; {' '.join(best)}{_figures_of(best[0], together)}"
    return _choice(best[0], "best of the unqualified", False, reason, front, refused)


def _choice(
    point: str, how: str, qualified: bool, reason: str, front: list[str], refused: dict[str, str]
) -> dict[str, Any]:
    """The content of choice.json."""
    verdict = {"point": point, "how": how, "qualified": qualified, "reason": reason}
    return {**verdict, "front": front, "refused": refused}


# ------------------------------------------------------------------------------------------- the rules


def _refusals(sweep: pd.DataFrame, gates: TranscoderGates) -> dict[str, str]:
    """{point: why it does not qualify}, of those that do not."""
    found = {}
    for point, rows in sweep.groupby("point", sort=False):
        is_all = rows["layer"] == ALL
        reasons = [reason for row in rows[~is_all].to_dict("records") for reason in _failures(row, gates)]
        if not rows.loc[is_all, "ce_recovered"].notna().any():
            reasons.append(
                "what it recovers is not known: in no pilot layer does mean ablation cost "
                f"{gates.uninformative_nats:g} nats"
            )
        if reasons:
            found[str(point)] = "; ".join(reasons)
    return found


def _failures(row: dict[str, Any], gates: TranscoderGates) -> list[str]:
    """What keeps a point from qualifying at one layer."""
    return [
        f"layer {row['layer']}: {words.format(row[column])} (limit {getattr(gates, column):g})"
        for column, words in JUDGED_BY.items()
        if not row[column] < getattr(gates, column)  # an unknown figure (NaN) does not pass
    ]


def _front(points: pd.DataFrame) -> list[str]:
    """The Pareto front of CE recovered and L0, sparsest first."""
    # Among points of one k a small difference in L0 means nothing: it is k but for tokens on which fewer respond.
    names = [_best_of_one_k(group) for _, group in points.dropna(subset="ce_recovered").groupby("k")]
    front: list[str] = []
    by_l0 = points.loc[names].sort_values(["l0", "ce_recovered"], ascending=[True, False])
    for name, recovered in by_l0["ce_recovered"].items():
        if not front or recovered > points.loc[front[-1], "ce_recovered"]:
            front.append(str(name))
    return front


def _best_of_one_k(points: pd.DataFrame) -> str:
    """The point that recovers most; of those within its interval the one with the fewest latents."""
    best = points.sort_values(["ce_recovered", "latents"], ascending=[False, True]).iloc[0]
    tied = points[(points["ce_recovered"] >= best["recovered_low"]) | (points.index == best.name)]
    return str(tied["latents"].idxmin())


def _best(points: pd.DataFrame) -> tuple[str, str] | None:
    """(the point that recovers most, or costs least where nothing is known to be recovered; which of the two)."""
    for column, sign, what in (("ce_recovered", 1, "recovers most CE"), ("ce_increase_nats", -1, "costs least CE")):
        known = (sign * points[column]).dropna()
        if len(known):
            return str(known.idxmax()), what
    return None


# ------------------------------------------------------------------------------------------- the words


def _figures_of(point: str, together: pd.DataFrame) -> str:
    """Its figures, as a part of a sentence; nothing for a point that is not in the sweep."""
    if point not in together.index:
        return ", and not in the sweep"
    row = together.loc[point]
    worst = ", ".join(words.format(row[column]) for column, words in JUDGED_BY.items())
    return (
        f": L0 {row['l0']:.1f} of {row['latents']:,} latents, CE recovered {_interval(row)}; in the worst pilot layer "
        f"{worst}"
    )


def _interval(row: pd.Series) -> str:
    if pd.isna(row["recovered_low"]):
        return f"{row['ce_recovered']:.3f} (no interval)"
    return f"{row['ce_recovered']:.3f} [{row['recovered_low']:.3f}, {row['recovered_high']:.3f}]"


def _why_sparsest(point: str, passed: pd.DataFrame) -> str:
    """Why the sweep chose this point, and how it stands to those of the same k."""
    qualified = "the only point that qualifies" if len(passed) == 1 else f"the sparsest of {len(passed)} that qualify"
    reason = f"{point} is {qualified}{_figures_of(point, passed)}"
    chosen = passed.loc[point]
    for other, row in passed[(passed["k"] == chosen["k"]) & (passed.index != point)].iterrows():
        is_tie = row["ce_recovered"] > chosen["ce_recovered"]
        verdict = "no more than chance may do, with more latents" if is_tie else "no better"
        reason += f". {other}, of the same k, recovers {_interval(row)} with {row['latents']:,} latents: {verdict}"
    return reason


def _would_choose(passed: pd.DataFrame, together: pd.DataFrame) -> str:
    """What the sweep says when the config has already chosen."""
    if len(passed):
        return f"The sweep would have chosen: {_why_sparsest(_front(passed)[0], passed)}"
    best = " ".join(_best(together) or ("nothing", "is known of any"))
    return f"The sweep would have chosen none, for no point qualifies; {best}"


def _none_qualifies(refused: dict[str, str]) -> str:
    """The message that stops the study, with every reason and what can be done."""
    reasons = "\n".join(f"  - {point}: {reason}" for point, reason in refused.items())
    return (
        f"transcoders: no point of the sweep passes gates.transcoders:\n{reasons}\n"
        "Train on more tokens (transcoders.sweep.tokens), offer other `points` (more latents or a larger k lower the "
        "CE, fewer latents are less often dead), name the `point` to train, or set `unqualified: best` to go on with "
        "the best."
    )
