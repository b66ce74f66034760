"""For each concept that is known token by token, which latent tells it best, and what does that latent stand beside?

Candidate and threshold are picked on the part `choose` and reported on the part `score`. To pick the best of hundreds
is a search in itself, so baselines are searched in the same way: raw units with both signs, as many random directions
as the dictionary has latents, a dictionary on random-weight models. A logistic probe on all units is the ceiling.

Source: docs/methods.md §9.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from reasondiff.config import Concepts
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.latents.concept_candidates import (
    Candidates,
    Inputs,
    Name,
    latents,
    neurons,
    probe,
    random_directions,
    untrained_latents,
)
from reasondiff.latents.concept_probes import fit_probes
from reasondiff.latents.concept_reading import CHOOSE, SCORE, Code, Read, ReadPart, read_part
from reasondiff.latents.concept_table import COLUMNS, concept_table
from reasondiff.models.neurons import recorded_neurons
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics
from reasondiff.store import ArtefactError
from reasondiff.text.tokens import PackedRows

UNTRAINED = "untrained"


def point_and_seed(path: str | Path) -> Name:
    """What a dictionary's path says of it: `.../<point>/seed<seed>/...`.

    Raises:
        ValueError: it says neither.
    """
    found = re.findall(r"([^/]+)/seed(\d+)(?=/|$)", Path(path).as_posix())
    if not found:
        raise ValueError(f"{path} does not lie in a folder <point>/seed<seed>, which says whose latents these are")
    return found[-1][0], int(found[-1][1])


# ----------------------------------------------------------------------------------------------- crosscoders


def measure_concepts(
    stream: ActivationStream,
    layer: int,
    statistics: SiteStatistics,
    crosscoders: Mapping[Name, Crosscoder],
    tags: Mapping[Name, Sequence[str]],
    untrained: tuple[Crosscoder, ActivationStream] | None,
    strings: Sequence[str],
    settings: Concepts,
    of: str,
) -> pd.DataFrame:
    """A table with the columns `COLUMNS` for the crosscoders of a site of the pair `of`. `tags`: of each latent of each
    crosscoder; `untrained`: the dictionary on random-weight models and the stream of these models; `strings`: what each
    id of the text stands for.

    Raises:
        ArtefactError: a table of tags is of another crosscoder, or a part of the text has no documents.
    """
    for name, crosscoder in crosscoders.items():
        if len(tags[name]) != crosscoder.n_latents:
            raise ArtefactError(
                f"{name[0]}/seed{name[1]} has {crosscoder.n_latents} latents, but its table {len(tags[name])} rows: it "
                "is another crosscoder's; delete it and run the same command again"
            )
    every = {**crosscoders, **({UNTRAINED: untrained[0]} if untrained else {})}
    widest = max((crosscoder.n_latents for crosscoder in every.values()), default=1)
    read = untrained_beside(stream, layer, untrained[1] if untrained else None)
    coders: dict[Any, Code] = {name: _coder(crosscoder) for name, crosscoder in crosscoders.items()}
    if untrained:
        coders[UNTRAINED] = lambda _x, beside: untrained[0].encode(beside[:, untrained[0].sides])
    choose, score = (
        read_part(part, stream, layer, statistics, read, coders, widest, strings, settings.tokens)
        for part in (CHOOSE, SCORE)
    )
    searches = [latents(name, one.n_latents, of, tags[name]) for name, one in crosscoders.items()]
    alike: dict[tuple[int, ...], list[Name]] = {}  # those that as many directions of the same units stand beside
    for name, crosscoder in crosscoders.items():
        alike.setdefault((crosscoder.n_latents, *crosscoder.sides), []).append(name)
    searches += [
        random_directions(_sides(stream.width, sides), choose, n, of, names, settings.seed)
        for (n, *sides), names in alike.items()
    ]
    sides = {info.name: side for side, info in enumerate(stream.infos)}
    searches += [neurons(lambda part, side=side: part.x[:, side], stream.width, own) for own, side in sides.items()]
    searches += [untrained_latents(UNTRAINED, untrained[0].n_latents, of)] if untrained else []
    searches += [_probe(choose, settings, _sides(stream.width, [side]), own) for own, side in sides.items()]
    searches.append(_probe(choose, settings, _sides(stream.width, list(sides.values())), of))
    return concept_table(layer, choose, score, searches, settings)


def _coder(crosscoder: Crosscoder) -> Code:
    return lambda x, _beside: crosscoder.encode(x[:, crosscoder.sides])


def untrained_beside(stream: ActivationStream, layer: int, untrained: ActivationStream | None) -> Read:
    """Reads the stream, and beside it the random models on the same tokens."""

    def read(rows: PackedRows) -> tuple[Block, Tensor | None]:
        return stream.read(rows), None if untrained is None else untrained.read(rows).activations[layer]

    return read


def _sides(width: int, sides: Sequence[int]) -> Inputs:
    """The centred activations of some sides, next to each other."""
    if list(sides) == list(range(sides[0], sides[-1] + 1)):  # a view does without a copy
        return lambda part: part.centred[:, sides[0] * width : (sides[-1] + 1) * width]
    columns = torch.cat([torch.arange(width) + side * width for side in sides])
    return lambda part: part.centred[:, columns]


def _probe(choose: ReadPart, settings: Concepts, inputs: Inputs, model: str) -> Candidates:
    return probe(fit_probes(inputs(choose), torch.from_numpy(choose.marks.T), settings.ridge), inputs, model)


# ----------------------------------------------------------------------------------------------- transcoders


def measure_transcoder_concepts(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    transcoders: Mapping[int, Transcoder],
    name: Name,
    strings: Sequence[str],
    settings: Concepts,
    of: str,
) -> pd.DataFrame:
    """A table with the columns `COLUMNS` for the transcoders of the layers of the model `of`, layer by layer.

    Neurons are the MLP's own (what its last layer of weights reads); random directions and the probe read the MLP's
    input, as the transcoder does. There is no dictionary on random weights beside transcoders: it would have to be
    trained for every layer. Transcoder latents have no tag.

    Raises:
        ArtefactError: a part of the text has no documents.
    """
    tables = [
        _layer_concepts(stream.only([layer]), layer, statistics[layer], transcoder, name, strings, settings, of)
        for layer, transcoder in transcoders.items()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def _layer_concepts(
    stream: ActivationStream,
    layer: int,
    statistics: SiteStatistics,
    transcoder: Transcoder,
    name: Name,
    strings: Sequence[str],
    settings: Concepts,
    of: str,
) -> pd.DataFrame:
    coders: dict[Any, Code] = {name: lambda x, _beside: transcoder.encode(x[:, 0])}
    with neurons_beside(stream, layer) as read:
        choose, score = (
            read_part(part, stream, layer, statistics, read, coders, transcoder.n_latents, strings, settings.tokens)
            for part in (CHOOSE, SCORE)
        )
    inputs = _sides(transcoder.width, [0])
    searches = [
        latents(name, transcoder.n_latents, of),
        random_directions(inputs, choose, transcoder.n_latents, of, [name], settings.seed),
        neurons(lambda part: part.beside, choose.beside.shape[1], of),
        _probe(choose, settings, inputs, of),
    ]
    return concept_table(layer, choose, score, searches, settings)


@contextlib.contextmanager
def neurons_beside(stream: ActivationStream, layer: int) -> Iterator[Read]:
    """Inside, reads the stream, and beside it the neurons of the layer's MLP on the same tokens."""
    with recorded_neurons(stream.models[0], layer) as found:

        def read(rows: PackedRows) -> tuple[Block, Tensor]:
            block = stream.read(rows)
            real = torch.from_numpy(np.flatnonzero(rows.document >= 0)).to(block.token.device)
            return block, found[layer].flatten(0, 1)[real]

        yield read
