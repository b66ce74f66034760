"""What does each sweep point cost a model on the pilot layers, and how sparse is it?

All points share the forward passes and the floors they are compared with.

Source: docs/methods.md §6.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from reasondiff.config import TranscoderEvaluation, TranscoderPoint
from reasondiff.dictionaries.evaluation import DENSE_RATE
from reasondiff.dictionaries.faithfulness import ALL, FLOORS, share
from reasondiff.dictionaries.replacements import (
    LINEAR_MAP,
    AffineMap,
    Imitated,
    first_documents,
    fit_maps,
    floors,
    imitated,
    imitation,
)
from reasondiff.dictionaries.splicing import TARGETS, Splice, headline_phase, increase, spliced_sums
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.stream import ActivationStream, SiteStatistics
from reasondiff.statistics import bootstrap, one_minus_ratio, ratio

SWEEP_COLUMNS = [
    "point", "expansion", "k", "latents", "layer", "l0", "fvu", "fvu_linear", "ce_increase_nats", "ce_low", "ce_high",
    "mean_ablation_nats", "zero_ablation_nats", "linear_nats", "ce_recovered", "recovered_low", "recovered_high",
    "dead_share", "dense_share", "n_problems", "n_tokens",
]  # fmt: skip


def evaluate_sweep(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    transcoders: Mapping[str, Mapping[int, Transcoder]],
    points: Mapping[str, TranscoderPoint],
    settings: TranscoderEvaluation,
    tokens: int,
    uninformative_nats: float,
) -> pd.DataFrame:
    """The wide table (`SWEEP_COLUMNS`) of every point's transcoders, from `tokens` tokens of the `choose` part.

    A row for each point and layer, replaced alone, on unmasked tokens; losses are over response tokens where the text
    has any, and `n_tokens` counts them.
    The row with layer `all` has the mean L0, the worst layer's CE increase, FVU and shares, the sum of the floors, and
    the CE recovered of all layers whose mean ablation costs `uninformative_nats` or more (NaN if none does).

    Raises:
        ArtefactError: the `choose` or `calibrate` part is empty, or too small for the linear maps.
    """
    stream = stream.only(sorted({layer for of_layers in transcoders.values() for layer in of_layers}))
    fitted = first_documents(stream.table, "calibrate", settings.linear_tokens, stream.context)
    sample = first_documents(stream.table, "choose", tokens, stream.context)
    maps = fit_maps(stream, statistics, fitted)
    figures = imitated(stream, statistics, maps, transcoders, sample)
    splices = _pilot_splices(transcoders, maps, statistics)
    spliced = spliced_sums(stream, statistics, splices, sample)
    phase = headline_phase(next(iter(spliced.values())))
    sums = {key: total[:, phase] for key, total in spliced.items()}
    rows = []
    for name, of_layers in transcoders.items():
        alone = [
            _pilot_row(name, points[name], layer, of_layers[layer], figures[layer], sums, settings)
            for layer in stream.layers
        ]
        rows += [*alone, _row_of_all(name, alone, sums, settings, uninformative_nats)]
    return pd.DataFrame(rows, columns=SWEEP_COLUMNS)


def _pilot_splices(
    transcoders: Mapping[str, Mapping[int, Transcoder]],
    maps: Mapping[int, AffineMap],
    statistics: Mapping[int, SiteStatistics],
) -> dict[tuple[str, int, str], Splice]:
    """{("point", layer, point) or ("floor", layer, its name): one layer replaced on unmasked tokens}."""
    found = {}
    for layer, layer_map in maps.items():
        for name, of_layers in transcoders.items():
            found["point", layer, name] = Splice({layer: imitation(of_layers[layer])}, "unmasked")
        for name, function in floors(layer_map, statistics[layer]).items():
            found["floor", layer, name] = Splice({layer: function}, "unmasked")
    return found


def _pilot_row(
    name: str,
    point: TranscoderPoint,
    layer: int,
    transcoder: Transcoder,
    figures: Imitated,
    sums: Mapping[tuple[str, int, str], Float[np.ndarray, "problem quantity"]],
    settings: TranscoderEvaluation,
) -> dict[str, object]:
    """A point on one layer."""
    draws = (settings.bootstrap, settings.seed)
    own, rate = sums["point", layer, name], figures.firing[name].rate()
    targets = own[:, TARGETS]
    added = bootstrap(np.stack([increase(own), targets], axis=1), ratio, *draws)
    return {
        "point": name,
        "expansion": point.expansion,
        "k": transcoder.k,
        "latents": transcoder.n_latents,
        "layer": str(layer),
        "l0": float(rate.sum()),
        "fvu": figures.fvu(name, "all", "unmasked", *draws)[0].value,
        "fvu_linear": figures.fvu(LINEAR_MAP, "all", "unmasked", *draws)[0].value,
        "ce_increase_nats": added.value,
        "ce_low": added.low,
        "ce_high": added.high,
        **{f"{at}_nats": float(increase(sums["floor", layer, at]).sum() / targets.sum()) for at in FLOORS},
        **_recovered(name, [layer], sums, settings),
        "dead_share": share(rate == 0),
        "dense_share": share(rate > DENSE_RATE),
        "n_problems": added.n,
        "n_tokens": int(targets.sum()),
    }


def _row_of_all(
    name: str,
    alone: list[dict],
    sums: Mapping[tuple[str, int, str], Float[np.ndarray, "problem quantity"]],
    settings: TranscoderEvaluation,
    uninformative_nats: float,
) -> dict[str, object]:
    """A point on the pilot layers together, each of which was replaced alone."""
    column = {key: np.array([row[key] for row in alone], dtype=np.float64) for key in SWEEP_COLUMNS[5:]}
    worst = alone[int(column["ce_increase_nats"].argmax())]  # NaN counts as the largest
    informative = [int(row["layer"]) for row in alone if row["mean_ablation_nats"] >= uninformative_nats]
    return {
        **worst,
        "layer": ALL,
        "l0": float(column["l0"].mean()),
        **{key: float(column[key].max()) for key in ("fvu", "fvu_linear", "dead_share", "dense_share")},
        **{f"{at}_nats": float(column[f"{at}_nats"].sum()) for at in FLOORS},
        **_recovered(name, informative, sums, settings),
    }


def _recovered(
    name: str,
    layers: list[int],
    sums: Mapping[tuple[str, int, str], Float[np.ndarray, "problem quantity"]],
    settings: TranscoderEvaluation,
) -> dict[str, float]:
    """The share of what mean ablation costs that a point gives back, over some layers together; NaN without any."""
    added = np.zeros((0, 2))
    if layers:
        pairs = [(sums["point", layer, name], sums["floor", layer, "mean_ablation"]) for layer in layers]
        added = np.sum([np.stack([increase(own), increase(floor)], axis=1) for own, floor in pairs], axis=0)
    found = bootstrap(added, one_minus_ratio, settings.bootstrap, settings.seed)
    return {"ce_recovered": found.value, "recovered_low": found.low, "recovered_high": found.high}
