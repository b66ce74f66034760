"""What does each live latent of some dictionaries respond to, and what might it have responded to but did not?

The text is read twice. The first time each latent's shortlist streams by; the second time only the documents of the
windows that were chosen from it are read, for the activations inside them and for windows in which a latent is silent.
All dictionaries share each forward pass. Crosscoders and transcoders differ in a `Coder` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.config import Examples
from reasondiff.dictionaries.code import SparseCode
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.replacements import first_documents
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.job import progress
from reasondiff.latents.collection import FirstReading, SecondReading
from reasondiff.latents.example_rows import PARTS
from reasondiff.latents.negatives import possible_centres, random_pool
from reasondiff.latents.windows import whole_documents
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked

RESPONSES_AT_ONCE = 2**26  # encoder responses (token x latent) made together: 256 MiB in float32


@dataclass(frozen=True)
class Coder:
    """A dictionary as examples are collected of it.

    `code` gives the sparse code of raw activations [token, side, unit] at `layer`; `directions` [latent, out] are the
    decoder rows by which neighbours are found.
    """

    layer: int
    code: Callable[[Float[Tensor, "token side unit"]], SparseCode]
    directions: Float[Tensor, "latent out"]

    @property
    def n_latents(self) -> int:
        return len(self.directions)


def crosscoder_coder(crosscoder: Crosscoder, layer: int) -> Coder:
    """A crosscoder of the stream's models; its code is weighted by the decoder norms already (docs/methods.md §3)."""
    directions = crosscoder.normalised_decoder().transpose(0, 1).flatten(1)
    return Coder(layer, lambda x: crosscoder.encode(x[:, crosscoder.sides]), directions)


def transcoder_coder(transcoder: Transcoder, layer: int) -> Coder:
    """A transcoder of the stream's MLPs, which reads their input."""
    return Coder(layer, lambda x: transcoder.encode(x[:, 0]), transcoder.decoder)


@dataclass(frozen=True)
class Collected:
    """What is known of the latents of one dictionary: pieces of a table of `example_table.SCHEMA`, to be taken once,
    one row per latent of how it fires, and what its rates are shares of."""

    examples: Iterator[pa.Table]
    firing: pd.DataFrame
    facts: dict[str, Any]


def collect_examples(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    coders: Mapping[Any, Coder],
    settings: Examples,
    words: Sequence[str],
    model: str,
) -> Iterator[tuple[Any, Collected]]:
    """(name, examples of every live latent) of each dictionary in turn; what was gathered of one is let go when the
    next is asked for. `words`: the string of each id; `model`: the name of what was read, a model or a pair.

    Raises:
        ArtefactError: the part `choose` or `score` of the text has no documents.
    """
    parts = {part: first_documents(stream.table, part, settings.tokens, stream.context).documents for part in PARTS}
    reading = Reading(stream, statistics, coders)
    firsts = {
        name: FirstReading(coder.n_latents, coder.layer, stream.table, stream.context, settings, stream.device)
        for name, coder in coders.items()
    }
    for part, documents in parts.items():
        reading.read(documents, firsts, f"firings in {part}")
        for first in firsts.values():
            first.end_part(part)
    pool = _silent_pool(stream, parts["score"], settings)
    seconds = {name: SecondReading(first, coders[name].directions, *pool) for name, first in firsts.items()}
    needed = np.any([second.documents_to_read() for second in seconds.values()], axis=0)
    read = np.concatenate(list(parts.values()))
    reading.read(read[needed[read]], seconds, "windows")
    while seconds:
        name = next(iter(seconds))
        second, tally = seconds.pop(name), firsts.pop(name).tally
        yield name, Collected(second.examples(words, model), second.firing(), tally.facts())


def _silent_pool(
    stream: ActivationStream, documents: Int[np.ndarray, " document"], settings: Examples
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens that may be unmasked, those of them in the pool of random windows)."""
    centres = possible_centres(stream.table, documents, stream.settings.first_positions, stream.foreign, stream.context)
    return centres, random_pool(centres, settings.pool_windows if settings.negatives else 0, settings.seed)


class Reading:
    """Reads documents with every dictionary, in pieces of whole documents, few enough tokens for one product with the
    widest encoder."""

    def __init__(self, stream: ActivationStream, statistics: Mapping[int, SiteStatistics], coders: Mapping[Any, Coder]):
        self.stream, self.statistics, self.coders = stream, statistics, coders
        widest = max((coder.n_latents for coder in coders.values()), default=1)
        self.tokens_at_once = max(1, RESPONSES_AT_ONCE // widest)

    def read(
        self,
        documents: Int[np.ndarray, " document"],
        readers: Mapping[Any, FirstReading] | Mapping[Any, SecondReading],
        what: str,
    ) -> None:
        """Gives the code of each dictionary on these documents to its reader."""
        for block in progress(self.stream(documents), what, unit="block"):
            for piece in whole_documents(block, self.tokens_at_once):
                for name, coder in self.coders.items():
                    readers[name].add(piece, *self._code(piece, coder))

    @torch.no_grad()
    def _code(self, piece: Block, coder: Coder) -> tuple[SparseCode, Int[Tensor, " kept"]]:
        """(code of the unmasked tokens of a piece, their rows in it)."""
        kept, _ = unmasked(piece, coder.layer, self.statistics[coder.layer], self.stream.settings)
        rows = kept.nonzero().squeeze(1)
        return coder.code(piece.activations[coder.layer][rows].float()), rows


def joined(
    firing: Mapping[int, pd.DataFrame], facts: Mapping[int, Mapping[str, Any]]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """How the latents of several layers fire as one table, layer by layer, and its facts. Sinks are found layer by
    layer, so that layers may have read different numbers of tokens: the facts then say the smallest, and under `layers`
    all of them."""
    layers = sorted(facts)
    common: dict[str, Any] = {name: min(facts[layer][name] for layer in layers) for name in facts[layers[0]]}
    differing = [name for name in common if any(facts[layer][name] != common[name] for layer in layers)]
    common["layers"] = {name: {str(layer): facts[layer][name] for layer in layers} for name in differing}
    return pd.concat([firing[layer] for layer in layers], ignore_index=True), common
