"""Which latents of a dictionary get words?

Those with a page, those in attribution graphs, and a sample that stands for the rest. Never all.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from reasondiff.config import Labels
from reasondiff.latents.ranking import ranked

COLUMNS = ["layer", "latent", "why", "tag"]
TRANSCODER = "transcoder"  # stands for the tag of latents that belong to one model
RATE_BINS = 3


def choose_latents(
    firing: pd.DataFrame,
    latents: pd.DataFrame | None,
    settings: Labels,
    in_graphs: Sequence[tuple[int, int]] = (),
) -> pd.DataFrame:
    """Latents to label with the columns layer, latent, why (page, graph, sample) and tag, by layer and latent.

    `firing` is one dictionary's table of that name; `latents` the latent table of a crosscoder, None for transcoders.
    A crosscoder's pages: the `pages` first latents that lean to the reasoning model, to the base, and shared; a set of
    transcoders': per layer a third as many (at least one), by activation mass. Then `sample` further ones, spread
    evenly over tag and tercile of the firing rate (a crosscoder), or over layers and terciles (transcoders; at least
    one of each layer if any are asked for). Pages and sample hold live latents alone, that is such as fire on the text
    that examples come from; a latent of a graph (layer, latent) is kept in any case.

    Raises:
        ValueError: a latent of a graph, or one that fires, is not in the tables.
    """
    _refuse_unknown(firing, in_graphs)
    table = _with_tags(firing, latents)
    live = table[(table["firings"] > 0) & (table["tag"] != "dead")]
    chosen = dict.fromkeys(_on_pages(live, latents, settings.pages), "page")
    chosen |= {key: "graph" for key in _plain(in_graphs) if key not in chosen}
    chosen |= dict.fromkeys(_sampled(live, chosen, settings), "sample")
    tags = dict(zip(_keys(table), table["tag"], strict=True))
    rows = [(*key, chosen[key], tags[key]) for key in sorted(chosen)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"layer": int, "latent": int})


def most_used(table: pd.DataFrame, folder: str, most: int) -> list[tuple[int, int]]:
    """(layer, latent) of the latents that graphs of one set of transcoders use most, at most `most` of them.

    `table` has the columns model, seed, layer and latent, the most used first; `folder` is that of the set
    (`transcoders/<model>/<text>/<point>/seed<seed>`).
    """
    _, model, *_, seed = folder.split("/")
    mine = table[(table["model"] == model) & (table["seed"] == int(seed.removeprefix("seed")))]
    return _keys(mine.head(most))


def rate_bins(rates: Iterable[float]) -> np.ndarray:
    """Tercile of each firing rate among these, 0 the rarest; equal rates may fall into neighbouring terciles."""
    rates = np.array(list(rates), dtype=np.float64)
    place = np.empty(len(rates), dtype=np.int64)
    place[np.argsort(rates, kind="stable")] = np.arange(len(rates))
    return place * RATE_BINS // max(1, len(rates))


def _keys(table: pd.DataFrame) -> list[tuple[int, int]]:
    return _plain(zip(table["layer"], table["latent"], strict=True))


def _plain(keys: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(int(layer), int(latent)) for layer, latent in keys]


def _refuse_unknown(firing: pd.DataFrame, in_graphs: Iterable[tuple[int, int]]) -> None:
    if unknown := sorted(set(_plain(in_graphs)) - set(_keys(firing))):
        raise ValueError(
            f"{len(unknown)} latent(s) of graphs are not in this dictionary, the first being (layer, latent) "
            f"{unknown[0]}: were the graphs made with other transcoders? Make them again."
        )


def _with_tags(firing: pd.DataFrame, latents: pd.DataFrame | None) -> pd.DataFrame:
    """The firing table with a tag and what a crosscoder's ranking needs."""
    if latents is None:
        return firing.assign(tag=TRANSCODER)
    if missing := sorted(set(firing["latent"]) - set(latents["latent"])):
        raise ValueError(
            f"latent {missing[0]} is in the firing table and not in the latent table: they are of different "
            "dictionaries. Run describe_latents and collect_examples again."
        )
    return firing.merge(latents[["latent", "tag", "delta"]], on="latent", how="left", validate="many_to_one")


def _on_pages(live: pd.DataFrame, latents: pd.DataFrame | None, pages: int) -> Iterator[tuple[int, int]]:
    if latents is not None:
        shown = latents[latents["latent"].isin(live["latent"])]
        layer = {int(latent): layer for layer, latent in _keys(live)}
        for side in ("reasoning", "base", "shared"):
            yield from ((layer[int(latent)], int(latent)) for latent in ranked(shown, side, pages)["latent"])
        return
    for _, table in live.groupby("layer"):
        yield from _keys(ranked(table, "any", max(1, pages // 3)))


def _sampled(live: pd.DataFrame, taken: Container[tuple[int, int]], settings: Labels) -> Iterator[tuple[int, int]]:
    """Live latents that are not taken yet."""
    if not len(live) or not settings.sample:
        return
    per_layer = (live["tag"] == TRANSCODER).all()
    groups = list(live.groupby("layer")) if per_layer else [(None, live)]
    wanted = max(1, settings.sample // len(groups))
    for _, table in groups:
        strata: dict[tuple[str, int], list[tuple[int, int]]] = {}
        table = table.sort_values(["layer", "latent"], kind="stable")
        for tag, tagged in table.groupby("tag"):
            for key, tercile in zip(_keys(tagged), rate_bins(tagged["rate"]), strict=True):
                if key not in taken:
                    strata.setdefault((str(tag), int(tercile)), []).append(key)
        yield from _drawn(strata, wanted, settings.seed)


def _drawn(strata: dict[tuple[str, int], list[tuple[int, int]]], wanted: int, seed: int) -> Iterator[tuple[int, int]]:
    """`wanted` members, one of each stratum in turn until they are found; all, where there are fewer."""
    generator = np.random.default_rng(seed)
    queues = [[strata[name][i] for i in generator.permutation(len(strata[name]))] for name in sorted(strata)]
    rounds = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    yield from rounds[:wanted]
