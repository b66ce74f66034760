"""Do transcoders from elsewhere imitate this model's MLPs at all?

Source: docs/methods.md §6.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reasondiff.dictionaries.replacements import LINEAR_MAP, fit_maps, imitated, sample_of
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.stream import ActivationStream, SiteStatistics
from reasondiff.store import ArtefactError


def unexplained(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    transcoders: Mapping[int, Transcoder],
    tokens: int,
) -> dict[int, tuple[float, float]]:
    """{layer: (FVU of its transcoder, FVU of the best linear map)}, over unmasked tokens of the `calibrate` part.

    The maps are fitted on up to `tokens` tokens of every other problem; both are measured on up to `tokens` tokens of
    the problems in between.

    Raises:
        ArtefactError: the `calibrate` part is too small.
    """
    stream = stream.only(list(transcoders))
    table = stream.table
    documents = table.documents_of("calibrate")
    in_turn = np.isin(table.problem[documents], np.unique(table.problem[documents])[::2])
    fitted = sample_of(table, documents[in_turn], "calibrate", tokens, stream.context)
    judged = sample_of(table, documents[~in_turn], "calibrate", tokens, stream.context)
    maps = fit_maps(stream, statistics, fitted)
    found = imitated(stream, statistics, maps, {"transcoder": transcoders}, judged)
    value = lambda figures, name: figures.fvu(name, "all", "unmasked", 1, 0)[0].value  # noqa: E731 (no interval)
    return {layer: (value(figures, "transcoder"), value(figures, LINEAR_MAP)) for layer, figures in found.items()}


def refuse_unfaithful(layer: int, fvu: float, fvu_linear: float, source: str) -> None:
    """Stops when a transcoder imitates its MLP worse than the best linear map does, or than the mean (FVU of 1).

    Raises:
        ArtefactError: with both figures and the likely causes.
    """
    if fvu < 1 and fvu <= fvu_linear:
        return
    raise ArtefactError(
        f"{source}: the transcoder of layer {layer} leaves {fvu:.3g} of the variance of the MLP's output unexplained, "
        f"where the best linear map leaves {fvu_linear:.3g} and the mean 1. Nothing can be read from it. It was "
        "probably trained on something else: on the whole block (sparsify's --layers; the hookpoints must be "
        "layers.*.mlp), on the residual stream before the norm, on another layer or on another model."
    )
