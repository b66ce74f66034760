"""How faithfully do transcoders imitate a model's MLPs?

By variance (is the MLP's output given back?), by sparsity, and by what the model loses when its MLPs are replaced.
Beside each figure of the transcoders stand those of poorer replacements: the best linear map, the mean, zero.

Source: docs/methods.md §6.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from reasondiff.config import TranscoderEvaluation
from reasondiff.dictionaries.evaluation import DENSE_RATE, RARE_RATE, Rows
from reasondiff.dictionaries.fidelity import FiringCounts
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
from reasondiff.dictionaries.splicing import (
    AGREEMENT,
    CE_ORIGINAL,
    KL,
    TARGET_PHASES,
    TARGETS,
    Splice,
    increase,
    spliced_sums,
)
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.mlp import Replacement
from reasondiff.models.stream import ActivationStream, SiteStatistics
from reasondiff.statistics import bootstrap, one_minus_ratio, ratio
from reasondiff.text.rendering import PHASES

ALL = "all"  # layers replaced at once
FLOORS = {"mean_ablation": "mean", "zero_ablation": "zero", "linear": "linear"}  # {row: in the names of shares}
COLUMNS = [
    "quantity", "layer", "part", "phase", "mask", "at", "value", "low", "high", "n", "n_unit", "n_tokens",
]  # fmt: skip


# ------------------------------------------------------------------------------------------- one model's transcoders


def evaluate_transcoders(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    transcoders: Mapping[int, Transcoder],
    settings: TranscoderEvaluation,
) -> pd.DataFrame:
    """The long table (`COLUMNS`) of a set of transcoders, layer by layer and with all layers replaced at once.

    Variance and sparsity on `tokens` of the `report` part (and a quarter as many of `family`), losses on
    `spliced_tokens` of `report`, all against the best linear maps, fitted on `linear_tokens` of `calibrate`.

    Raises:
        ArtefactError: the `report` or `calibrate` part is empty, or too small for the linear maps.
    """
    stream = stream.only(list(transcoders))
    table, context, rows = stream.table, stream.context, Rows()
    maps = fit_maps(stream, statistics, first_documents(table, "calibrate", settings.linear_tokens, context))
    tokens = {"report": settings.tokens}
    if len(table.documents_of("family")):
        tokens["family"] = settings.tokens // 4
    for part, limit in tokens.items():
        sample = first_documents(table, part, limit, context)
        for layer, figures in imitated(stream, statistics, maps, {"transcoder": transcoders}, sample).items():
            _write_unexplained(rows, layer, part, figures, settings)
            if part == "report":
                _write_sparsity(rows, layer, figures.firing["transcoder"])
    splices = _splices(transcoders, maps, statistics)
    spliced = first_documents(table, "report", settings.spliced_tokens, context)
    _write_losses(rows, spliced_sums(stream, statistics, splices, spliced), settings)
    return pd.DataFrame(rows.rows, columns=COLUMNS)


def _write_unexplained(rows: Rows, layer: int, part: str, figures: Imitated, settings: TranscoderEvaluation) -> None:
    for at, name in {"transcoder": "transcoder", "linear": LINEAR_MAP}.items():
        for mask in ("unmasked", "all"):
            for phase in ("all", *PHASES):
                estimate, tokens = figures.fvu(name, phase, mask, settings.bootstrap, settings.seed)
                if tokens:
                    where = {"layer": str(layer), "part": part, "phase": phase, "mask": mask, "at": at}
                    rows.add("fvu", estimate, "problems", n_tokens=tokens, **where)


def _write_sparsity(rows: Rows, layer: int, counts: FiringCounts) -> None:
    """L0 per phase, and the shares of latents that fire too rarely or too often, over unmasked tokens."""
    where = {"layer": str(layer), "part": "report", "mask": "unmasked", "at": "transcoder"}
    fired, tokens = counts.fired[:, 1].sum(1).tolist(), counts.tokens[:, 1].tolist()  # per phase
    for phase, firings, n in [("all", sum(fired), sum(tokens)), *zip(PHASES, fired, tokens, strict=True)]:
        if n:
            rows.add("l0", firings / n, "tokens", n, phase=phase, n_tokens=n, **where)
    rate, n = counts.rate(), counts.unmasked_tokens()
    shares = {
        "dead_share": share(rate == 0),
        "rare_share": share((rate > 0) & (rate < RARE_RATE)),
        "dense_share": share(rate > DENSE_RATE),
        "dead_rate_bound": 3 / max(1, n),
    }
    for quantity, value in shares.items():
        rows.add(quantity, value, "latents", len(rate), phase="all", n_tokens=n, **where)


def share(latents: Tensor) -> float:
    return float(latents.double().mean())


def _splices(
    transcoders: Mapping[int, Transcoder], maps: Mapping[int, AffineMap], statistics: Mapping[int, SiteStatistics]
) -> dict[tuple[str, str, str], Splice]:
    """{(layer, at, mask): what is replaced by what}: each layer alone, then all at once."""
    functions: dict[int, dict[str, Replacement]] = {
        layer: {"transcoder": imitation(transcoder), **floors(maps[layer], statistics[layer])}
        for layer, transcoder in transcoders.items()
    }
    found = {}
    for layer, named in functions.items():
        found[str(layer), "transcoder", "all"] = Splice({layer: named["transcoder"]}, "all")
        for at, function in named.items():
            found[str(layer), at, "unmasked"] = Splice({layer: function}, "unmasked")
    for mask in ("unmasked", "all"):
        for at in ("transcoder", *FLOORS):
            found[ALL, at, mask] = Splice({layer: named[at] for layer, named in functions.items()}, mask)
        found[ALL, "identity", mask] = Splice({layer: lambda _x, own: own for layer in functions}, mask)
    return found


def _write_losses(
    rows: Rows,
    sums: Mapping[tuple[str, str, str], Float[np.ndarray, "problem phase quantity"]],
    settings: TranscoderEvaluation,
) -> None:
    for (layer, at, mask), total in sums.items():
        beside = {name: sums[layer, name, mask] for name in FLOORS if (layer, name, mask) in sums}
        for index, phase in enumerate(TARGET_PHASES):
            targets = int(total[:, index, TARGETS].sum())
            if not targets:
                continue
            where = {"layer": layer, "part": "report", "phase": phase, "mask": mask, "at": at, "n_tokens": targets}
            compared = {name: floor[:, index] for name, floor in beside.items()} if at == "transcoder" else {}
            for quantity, (values, figure) in _loss_figures(total[:, index], compared).items():
                estimate = bootstrap(np.stack(values, axis=1), figure, settings.bootstrap, settings.seed)
                rows.add(quantity, estimate, "problems", **where)


def _loss_figures(
    sums: Float[np.ndarray, "problem quantity"], beside: Mapping[str, Float[np.ndarray, "problem quantity"]]
) -> dict[str, tuple]:
    """{quantity: (two columns [problem], the figure made of their sums)}; `beside` are the floors to compare with."""
    targets = sums[:, TARGETS]
    found = {
        "ce_original_nats": ((sums[:, CE_ORIGINAL], targets), ratio),
        "ce_increase_nats": ((increase(sums), targets), ratio),
        "kl_nats": ((sums[:, KL], targets), ratio),
        "top1_agreement": ((sums[:, AGREEMENT], targets), ratio),
    }
    for name, floor in beside.items():
        found[f"ce_recovered_{FLOORS[name]}"] = ((increase(sums), increase(floor)), one_minus_ratio)
        found[f"kl_recovered_{FLOORS[name]}"] = ((sums[:, KL], floor[:, KL]), one_minus_ratio)
    if "linear" in beside:
        found["top1_excess"] = ((sums[:, AGREEMENT] - beside["linear"][:, AGREEMENT], targets), ratio)
    return found
