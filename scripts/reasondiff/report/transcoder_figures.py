"""How do the figures on transcoders look? One function each: table in, figure out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reasondiff.config import TranscoderGates
from reasondiff.report.drawing import (
    CONTROL_COLOUR,
    MARKERS,
    SERIES,
    dots_with_intervals,
    dots_with_upright_intervals,
    name_rows,
    nothing_to_show,
    panels,
)
from reasondiff.report.transcoder_tables import ALL, at_once, by_layer, by_replacement, is_informative

LINEAR_BELOW_NATS = 1e-3  # axes of losses are logarithmic above, so that 0 and less have a place
WIDEST = 11.0  # inches
INCHES_OF_A_NAME = 1.9  # in a legend
SHADE = "#ECEEF1"
REPLACED = {  # {replacement: (name, style)}
    "transcoder": ("transcoders", {"color": "#D55E00", "marker": "o"}),
    "linear": ("best linear map", {"color": "#0072B2", "marker": "^", "mfc": "white"}),
    "mean_ablation": ("mean ablation", {"color": CONTROL_COLOUR, "marker": "D", "mfc": "white"}),
    "zero_ablation": ("zero ablation", {"color": "#9AA0A6", "marker": "s", "mfc": "white"}),
}
SEED_COLOURS = ("#D55E00", "#E69F00", "#CC79A7", "#009E73")


# ------------------------------------------------------------------------------------------------ the sweep


def sweep(table: pd.DataFrame, choice: Mapping[str, Any] | None, gates: TranscoderGates) -> Figure:
    """Every point by its L0: CE recovered with the Pareto front, and the worst pilot layer's dead and dense shares."""
    points = points_of(table)
    if points.empty:
        return nothing_to_show("no sweep was run")
    chosen, front = (choice["point"], choice["front"]) if choice else (None, [])
    figure, axes = panels(1, 3, 3.6, 3.1)
    recovered, dead, dense = axes[0]
    for index, (expansion, rows) in enumerate(points.groupby("expansion")):
        style = {"color": SERIES[(0, 2, 4, 3, 5, 1)[index % 6]], "marker": MARKERS[index % 8], "markersize": 5}
        figures = rows["ce_recovered"], rows["recovered_low"], rows["recovered_high"]
        dots_with_upright_intervals(recovered, rows["drawn_at"], *figures, label=f"expansion {expansion}", **style)
        for panel, column in ((dead, "dead_share"), (dense, "dense_share")):
            panel.plot(rows["drawn_at"], 100 * rows[column], linestyle="none", **style)
    _front(recovered, points, front)
    shown = ((recovered, "ce_recovered", 1), (dead, "dead_share", 100), (dense, "dense_share", 100))
    for panel, column, scale in shown:
        _ring(panel, points[points["point"] == chosen], column, scale)
        _by_l0(panel, points["l0"])
    for row in points.dropna(subset=["ce_recovered"]).itertuples():
        place = {"xytext": (6, -9), "textcoords": "offset points", "fontsize": 7, "color": "#4A4F57"}
        recovered.annotate(row.point, (row.drawn_at, row.ce_recovered), **place)
    recovered.set_title("CE recovered against mean ablation")
    if points["ce_recovered"].isna().all():
        recovered.text(0.5, 0.5, "no pilot layer is informative", transform=recovered.transAxes, ha="center")
    for panel, name, limit in ((dead, "dead", gates.dead_share), (dense, "dense", gates.dense_share)):
        panel.set_title(f"{name} latents, %, in the worst pilot layer")
        panel.axhline(100 * limit, color=CONTROL_COLOUR, linewidth=0.9, linestyle="--", label="limit")
        panel.set_ylim(bottom=-0.04 * panel.get_ylim()[1])
    _legend_below(figure, [recovered, dead])
    return figure


def points_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a sweep's points for the pilot layers together, in the order of the sweep, and where they are
    drawn: points of one k a little apart."""
    if table.empty:
        return pd.DataFrame(columns=["point", "l0", "ce_recovered"])
    rows = table.astype({"point": str, "layer": str})
    rows = rows[rows["layer"] == ALL]
    within = rows.groupby("k")["latents"].rank(method="first") - 1
    middle = (rows.groupby("k")["latents"].transform("size") - 1) / 2
    return rows.assign(drawn_at=rows["l0"] * 1.03 ** (within - middle))


def _front(panel: Axes, points: pd.DataFrame, front: list[str]) -> None:
    if len(front) < 2:  # a line needs two
        return
    on_front = points.set_index("point").loc[[point for point in front if point in set(points["point"])]]
    style = {"color": "#8A9099", "linewidth": 1, "zorder": 0, "label": "Pareto front"}
    panel.plot(on_front["drawn_at"], on_front["ce_recovered"], **style)


def _ring(panel: Axes, chosen: pd.DataFrame, column: str, scale: int) -> None:
    style = {"linestyle": "none", "marker": "o", "markersize": 13, "mfc": "none", "mec": "#000000", "label": "chosen"}
    panel.plot(chosen["drawn_at"], scale * chosen[column], **style)


def _by_l0(panel: Axes, l0s: pd.Series) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xlim(l0s.min() / 1.35, l0s.max() * 1.5)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set(xlabel="L0 (mean over pilot layers)")


def _legend_below(figure: Figure, panels_with_names: list[Axes]) -> None:
    """One legend for all panels, each name once, in as many columns as there is room for."""
    found: dict[str, Any] = {}
    for panel in panels_with_names:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    columns = max(1, int(figure.get_figwidth() / INCHES_OF_A_NAME))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def _loss_axis(panel: Axes, which: str) -> None:
    """Makes the axis `x` or `y` one of losses in nats; before anything is drawn, so that its limits fit."""
    getattr(panel, f"set_{which}scale")("symlog", linthresh=LINEAR_BELOW_NATS)
    getattr(panel, f"{which}axis").set_major_formatter(lambda value, _: f"{value:g}")


# ------------------------------------------------------------------------------------------------ layer by layer


def layers(rows: pd.DataFrame, gates: TranscoderGates) -> Figure:
    """CE increase with one layer's MLP replaced, beside the best linear map and mean ablation; a panel per model."""
    alone = by_layer(rows)
    models = list(alone["model"].unique())
    if not models:
        return nothing_to_show("no transcoder was evaluated")
    most = alone.groupby("model")["layer"].nunique().max()
    width = max(5.0, 1.6 + 0.5 * most)
    across = max(1, min(len(models), int(WIDEST / width)))
    figure, axes = panels(-(-len(models) // across), across, min(width, WIDEST), 3.0, sharey="all")
    for model, panel in zip(models, axes.flat, strict=False):
        _layers_of(panel, alone[alone["model"] == model], gates)
        panel.set_title(f"{model} (n = {_n(alone, model)} problems)")
    for panel in axes.flat[len(models) :]:
        panel.axis("off")
    for row in axes:
        row[0].set(ylabel="CE increase, nats per token")
    _legend_below(figure, list(axes.flat[: len(models)]))
    return figure


def _n(rows: pd.DataFrame, model: str) -> str:
    counted = rows.loc[rows["model"] == model, "n_spliced_problems"].max()
    return "0" if pd.isna(counted) else f"{counted:.0f}"


def _layers_of(panel: Axes, rows: pd.DataFrame, gates: TranscoderGates) -> None:
    """Dots only: a line from layer to layer would draw a trend where none is meant."""
    _loss_axis(panel, "y")
    places = {layer: at for at, layer in enumerate(sorted(rows["layer"].unique(), key=int))}
    series = _series(rows)
    for index, (name, costs, style) in enumerate(series):
        shift = 0.16 * (index - (len(series) - 1) / 2)
        where = [places[layer] + shift for layer in costs["layer"]]
        between = costs["ce_increase_low"], costs["ce_increase_high"]
        dots_with_upright_intervals(panel, where, costs["ce_increase"], *between, markersize=4.5, label=name, **style)
    _shade_uninformative(panel, rows.drop_duplicates("layer"), places, gates)
    limit = {"color": CONTROL_COLOUR, "linewidth": 0.9, "linestyle": "--"}
    panel.axhline(gates.ce_increase_nats, label="limit of a layer", **limit)
    panel.set_xticks(list(places.values()), list(places))
    panel.set(xlabel="layer", xlim=(-0.6, len(places) - 0.4))


def _series(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """(name, costs, style) of each seed's transcoders and of the floors, which all seeds share."""
    by_seed = dict(list(rows.groupby("seed")))
    found = []
    for index, (seed, of_seed) in enumerate(by_seed.items()):
        style = {**REPLACED["transcoder"][1], "color": SEED_COLOURS[index % len(SEED_COLOURS)]}
        found.append((f"transcoder, seed {seed}", by_replacement(of_seed, ["transcoder"]), style))
    first = next(iter(by_seed.values()))
    return found + [
        (REPLACED[at][0], by_replacement(first, [at]), REPLACED[at][1]) for at in ("linear", "mean_ablation")
    ]


def _shade_uninformative(panel: Axes, rows: pd.DataFrame, places: Mapping[str, int], gates: TranscoderGates) -> None:
    for row in rows.itertuples():
        if not is_informative(row.ce_increase_mean_ablation, gates):
            at = places[row.layer]
            panel.axvspan(at - 0.5, at + 0.5, color=SHADE, linewidth=0, zorder=0, label="uninformative layer")


# ------------------------------------------------------------------------------------------------ all layers


def together(rows: pd.DataFrame, gates: TranscoderGates) -> Figure:
    """What replacing all layers of a set at once costs: CE, KL and top-1 agreement, by what takes the MLPs' place."""
    costs = by_replacement(at_once(rows), list(REPLACED))
    sets = list(costs["set"].unique())
    if not sets:
        return nothing_to_show("no transcoder was evaluated")
    titles = {"ce_increase": "CE increase, nats", "kl": "KL, nats", "top1": "top-1 agreement"}
    figure, axes = panels(1, len(titles), 3.6, 0.9 + 0.75 * len(sets), sharey="all")
    for (figure_name, title), panel in zip(titles.items(), axes[0], strict=True):
        if figure_name == "top1":
            panel.set_xlim(-0.03, 1.03)
        else:
            _loss_axis(panel, "x")
        for index, (at, (name, style)) in enumerate(REPLACED.items()):
            table = costs[costs["at"] == at]
            where = [sets.index(one) + 0.17 * (index - 1.5) for one in table["set"]]
            between = table[f"{figure_name}_low"], table[f"{figure_name}_high"]
            dots_with_intervals(panel, where, table[figure_name], *between, markersize=4.5, label=name, **style)
        panel.set_title(title)
    limit = {"color": CONTROL_COLOUR, "linewidth": 0.9, "linestyle": "--", "label": "limit of all layers"}
    axes[0, 0].axvline(gates.all_layers_ce_increase_nats, **limit)
    name_rows(axes[0, 0], sets)
    _legend_below(figure, [axes[0, 0]])
    return figure
