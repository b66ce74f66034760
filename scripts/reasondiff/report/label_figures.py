"""How do the figures on labels and on known concepts look?"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reasondiff.labels.comparison import HEADLINE
from reasondiff.report.concept_tables import DICTIONARY, PLACE, beside_baselines
from reasondiff.report.drawing import (
    CONTROL_COLOUR,
    MARKERS,
    SERIES,
    TAG_COLOURS,
    TAG_WORDS,
    dots_with_intervals,
    name_rows,
    nothing_to_show,
    panels,
)
from reasondiff.report.label_tables import TAG_ORDER

CONTROLS = {"own": "own label", "shuffled": "shuffled label", "top_token": "top token alone"}
BESIDE = {"f1": "best latent", "neuron": "best neuron", "random": "random directions"}
BESIDE |= {"untrained": "dictionary on random weights", "probe": "probe"}
SHIFT = 0.16  # between marks of one row


def by_tag(summary: pd.DataFrame) -> pd.DataFrame:
    """Of a summary of label scores what the figure shows: detection against all negatives, by tag, with an interval."""
    rows = summary[(summary["split"] == "tag") & (summary["task"] == "detection")]
    rows = rows[(rows["negatives"] == HEADLINE["detection"]) & rows["low"].notna() & rows["control"].isin(CONTROLS)]
    owners = list(dict.fromkeys(rows["of"]))
    order = [(owners.index(of), TAG_ORDER.index(tag)) for of, tag in zip(rows["of"], rows["group"], strict=True)]
    return rows.iloc[sorted(range(len(rows)), key=order.__getitem__)]


def label_scores(summary: pd.DataFrame) -> Figure:
    """Mean label scores by pair (or model) and tag, beside both controls."""
    shown = by_tag(summary)
    if shown.empty:
        return nothing_to_show("no tag has enough scored labels")
    places = list(shown[["of", "group"]].drop_duplicates().itertuples(index=False, name=None))
    figure, axes = panels(1, 1, 7.5, 0.9 + 0.34 * len(places))
    panel = axes[0, 0]
    for number, (control, name) in enumerate(CONTROLS.items()):
        rows = shown[shown["control"] == control]
        at = [places.index(key) + SHIFT * (number - 1) for key in zip(rows["of"], rows["group"], strict=True)]
        colours = [TAG_COLOURS.get(tag, CONTROL_COLOUR) for tag in rows["group"]]
        for place, row, colour in zip(at, rows.itertuples(), colours, strict=True):
            style = {"color": colour, "marker": MARKERS[number], "markersize": 5}
            style |= {} if control == "own" else {"markerfacecolor": "white", "alpha": 0.75}
            dots_with_intervals(panel, [place], [row.value], [row.low], [row.high], **style)
        fill = CONTROL_COLOUR if control == "own" else "white"
        panel.plot([], [], MARKERS[number], color=CONTROL_COLOUR, markerfacecolor=fill, label=name)
    panel.axvline(0.5, color="#8A9099", linewidth=0.8, linestyle=":")
    name_rows(panel, [f"{of}, {TAG_WORDS.get(tag, tag)}" for of, tag in places])
    panel.set(xlabel="balanced accuracy, mean over latents (0.5: chance)")
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def first_dictionaries(concepts: pd.DataFrame) -> pd.DataFrame:
    """What the figure on concepts shows: of each pair's site the first point and seed, by F1 and over all tags."""
    frame = beside_baselines(concepts, "f1")
    frame = frame[(frame["tag"] == "all") & frame["f1"].notna()]
    first = frame.drop_duplicates(PLACE)[DICTIONARY]
    return frame.merge(first, on=DICTIONARY)


def concepts(found: pd.DataFrame) -> Figure:
    """F1 of the best latent for each known concept, beside its baselines; a panel for each site."""
    shown = first_dictionaries(found)
    if shown.empty:
        return nothing_to_show("no concept was measured in a crosscoder")
    groups = list(shown.groupby(DICTIONARY, sort=False))
    names = list(dict.fromkeys(shown["concept"]))
    figure, axes = panels(1, len(groups), max(3.6, 8.5 / len(groups)), 1.1 + 0.36 * len(names), sharey="all")
    for (key, rows), panel in zip(groups, axes[0], strict=True):
        _concepts(panel, rows, names)
        panel.set(title=f"{key[0]}, layer {key[2]}, {key[3]}", xlabel="F1 on the part score", xlim=(-0.02, 1.05))
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _concepts(panel: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    for number, (column, name) in enumerate(BESIDE.items()):
        known = rows[rows[column].notna()]
        at = [names.index(concept) + SHIFT * 0.9 * (number - 2) for concept in known["concept"]]
        style = {"color": SERIES[(2, 0, 7, 5, 6)[number]], "marker": MARKERS[number], "markersize": 4.5, "label": name}
        style |= {} if column == "f1" else {"markerfacecolor": "white"}
        ends = (known[f"{column}_low"], known[f"{column}_high"])
        dots_with_intervals(panel, at, known[column], *ends, **style)
    name_rows(panel, names)
