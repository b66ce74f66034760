"""How do the figures on graphs, interventions, motifs and comparisons look?"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reasondiff.config import GraphGates, Motifs
from reasondiff.report.circuit_tables import (
    TARGETS,
    headline_agreement,
    headline_profiles,
    judged,
    shown_motifs,
    traced,
)
from reasondiff.report.drawing import (
    CONTROL_COLOUR,
    MARKERS,
    SERIES,
    dots_with_intervals,
    name_rows,
    nothing_to_show,
    panels,
)

SCORES = {
    "feature_share": "feature share",
    "tokens_via_features": "token influence via latents",
    "replacement": "replacement score",
}
PREDICTIONS = {
    "total": "all paths",
    "direct": "direct edge",
    "baseline_logit": "activation × logit effect",
    "baseline_norm": "activation × norm",
}
SHIFT = 0.2
MOST_MEASURES = 24


def graph_scores(summary: pd.DataFrame, gates: GraphGates) -> Figure:
    """Every graph as a dot, medians as bars: how much of the influence latents carry, by model, seed and target."""
    shown = traced(summary)
    if shown.empty:
        return nothing_to_show("no graph was made (n = 0)")
    found = {(row.model, row.seed, row.target) for row in shown.itertuples()}
    places = sorted(found, key=lambda key: (key[0], key[1], TARGETS.index(key[2])))
    figure, axes = panels(1, len(SCORES), 3.0, 0.9 + 0.26 * len(places), sharey="all")
    for (column, title), panel in zip(SCORES.items(), axes[0], strict=True):
        for at, key in enumerate(places):
            values = shown[(shown[["model", "seed", "target"]] == list(key)).all(axis=1)][column]
            panel.plot(values, [at] * len(values), "o", color=SERIES[1], markersize=3, alpha=0.5, zorder=2)
            panel.plot([values.median()] * 2, [at - 0.3, at + 0.3], color=CONTROL_COLOUR, linewidth=1.6, zorder=3)
        panel.set(title=title, xlim=(-0.03, 1.03))
    axes[0, 0].axvline(gates.feature_share, color=CONTROL_COLOUR, linewidth=0.8, linestyle=":")
    name_rows(axes[0, 0], [f"{model}, seed {seed}, {target}" for model, seed, target in places])
    return figure


def interventions(agreement: pd.DataFrame) -> Figure:
    """Slope and sign agreement of the measured change on the predicted one, of drawn latents and of matched ones."""
    shown = headline_agreement(agreement)
    shown = shown[shown["slope"].notna()] if len(shown) else shown
    if shown.empty:
        return nothing_to_show("no intervention was made (n = 0)")
    subjects = list(shown[["model", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    rows = [(*subject, name) for subject in subjects for name in PREDICTIONS]
    figure, axes = panels(1, 3, 3.0, 0.9 + 0.3 * len(rows), sharey="all")
    measures = {"slope": "slope", "r2": "R²", "sign": "sign agreement"}
    for (measure, title), panel in zip(measures.items(), axes[0], strict=True):
        _agreement(panel, shown, rows, measure)
        panel.set(title=title)
    axes[0, 0].axvline(1, color="#8A9099", linewidth=0.8, linestyle=":")
    axes[0, 2].axvline(0.5, color="#8A9099", linewidth=0.8, linestyle=":")
    name_rows(axes[0, 0], [f"{model}, seed {seed}, {PREDICTIONS[name]}" for model, seed, name in rows])
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _agreement(panel: Axes, shown: pd.DataFrame, rows: list[tuple], measure: str) -> None:
    kinds = [(freezing, chosen) for freezing in ("frozen", "free") for chosen in ("stratified", "matched")]
    column = "sign_agreement" if measure == "sign" else measure
    for number, (freezing, chosen) in enumerate(kinds):
        mine = shown[(shown["freezing"] == freezing) & (shown["chosen"] == chosen)]
        mine = mine[mine["prediction"].isin(PREDICTIONS) & mine[column].notna()]
        at = [rows.index((row.model, row.seed, row.prediction)) + SHIFT * (number - 1.5) for row in mine.itertuples()]
        fill = {} if chosen == "stratified" else {"markerfacecolor": "white"}
        style = {"color": SERIES[0] if freezing == "frozen" else SERIES[2], "marker": MARKERS[number], "markersize": 4}
        name = f"{freezing}, {'drawn by effect' if chosen == 'stratified' else 'matched random'}"
        low, high = mine[f"{measure}_low"], mine[f"{measure}_high"]
        dots_with_intervals(panel, at, mine[column], low, high, label=name, **style, **fill)


def motif_profiles(profiles: pd.DataFrame, settings: Motifs) -> Figure:
    """How much more often motifs occur than in graphs of our null, by model and phase."""
    shown = headline_profiles(profiles, settings)
    names = shown_motifs(shown)
    if not names:
        return nothing_to_show("no motif has an interval (fewer than six prompts, or none)")
    shown = shown[shown["motif"].isin(names) & shown["low"].notna()]
    groups = list(shown[["source", "phase"]].drop_duplicates().itertuples(index=False, name=None))
    figure, axes = panels(1, 1, 6.5, 0.9 + (0.16 + 0.1 * len(groups)) * len(names))
    panel = axes[0, 0]
    for number, (source, phase) in enumerate(groups):
        mine = shown[(shown["source"] == source) & (shown["phase"] == phase)]
        at = [names.index(name) + 0.8 * ((number + 0.5) / len(groups) - 0.5) for name in mine["motif"]]
        style = {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
        dots_with_intervals(
            panel, at, mine["log_ratio"], mine["low"], mine["high"], label=f"{source}, {phase}", **style
        )
    panel.axvline(0, color="#8A9099", linewidth=0.8)
    name_rows(panel, names)
    panel.set(xlabel="ln(observed / null), mean over prompts")
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def comparison(rows: pd.DataFrame) -> Figure:
    """Each measure's difference with its interval, and what its null gives."""
    shown = judged(rows)
    shown = shown[shown["difference"].notna()] if len(shown) else shown
    if shown.empty:
        reasons = [str(reason) for reason in rows["reason"].dropna().unique()] if len(rows) else []
        return nothing_to_show("not testable: " + (reasons[0] if reasons else "nothing was compared"))
    shown = most_apart(shown)
    families = list(dict.fromkeys(shown["measure_family"]))
    tallest = max(int((shown["measure_family"] == family).sum()) for family in families)
    figure, axes = panels(1, len(families), 4.4, 0.9 + 0.26 * tallest)
    for family, panel in zip(families, axes[0], strict=True):
        mine = shown[shown["measure_family"] == family]
        at = list(range(len(mine)))
        grey = {"color": "#8A9099", "marker": "s", "markersize": 4, "markerfacecolor": "white"}
        null = [mine[name] for name in ("null_difference", "null_low", "null_high")]
        dots_with_intervals(panel, [place + 0.18 for place in at], *null, label="null", **grey)
        for verdict, colour in (("found", SERIES[2]), ("not found", SERIES[0]), ("not testable", "#8A9099")):
            chosen = (mine["verdict"] == verdict).to_numpy()
            place = [one - 0.12 for one, is_chosen in zip(at, chosen, strict=True) if is_chosen]
            told = mine[chosen]
            style = {"color": colour, "marker": "o", "markersize": 5, "label": verdict}
            if len(told):
                dots_with_intervals(panel, place, told["difference"], told["low"], told["high"], **style)
        panel.axvline(0, color="#8A9099", linewidth=0.8)
        name_rows(panel, list(mine["measure"]))
        panel.set(title=f"{family}: {mine['group_a'].iloc[0]} − {mine['group_b'].iloc[0]}")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def most_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_MEASURES` rows of each family, the smallest p first; in their own order."""
    ranked = rows.sort_values("p_adjusted", kind="stable").groupby("measure_family", sort=False).head(MOST_MEASURES)
    return rows.loc[rows.index.isin(ranked.index)]
