"""What is known of one latent after the other, when a dictionary has more of them than fit in memory?

Examples, firings and logit effects lie in files ordered by layer and latent; they are read side by side, a piece at a
time. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reasondiff.latents.example_table import FIRING
from reasondiff.store import ArtefactError, read_card, read_json

ROWS_AT_ONCE = 512
Key = tuple[int, int]  # layer, latent


@dataclass(frozen=True)
class Sources:
    """Files of one dictionary. `logits` and `labels` may be missing."""

    examples: str | Path
    firing: str | Path
    logits: str | Path | None = None
    labels: str | Path | None = None

    def files(self) -> dict[str, str | Path]:
        """Those that there are, by kind."""
        return {kind: path for kind, path in vars(self).items() if path is not None}


@dataclass(frozen=True)
class LatentRecord:
    """One live latent: its row of the table of firings, its rows of logit effects (one per model, none without that
    file), its examples that fire, in stored order and with numbers as `plain` has them, and its row of labels.json,
    if it has a label."""

    layer: int
    latent: int
    firing: Mapping[str, Any]
    logits: tuple[Mapping[str, Any], ...]
    examples: tuple[Mapping[str, Any], ...]
    label: Mapping[str, Any] | None

    def strongest(self) -> list[Mapping[str, Any]]:
        """The strongest examples of both parts, falling; those that tie in stored order."""
        found = [example for example in self.examples if example["kind"] == "strongest"]
        return sorted(found, key=lambda example: -example["value"])


@dataclass(frozen=True)
class Layer:
    """One layer's dictionary: latents in all, live ones, and the unmasked tokens that were read."""

    layer: int
    latents: int
    live: int
    tokens: int


def read_layers(sources: Sources) -> list[Layer]:
    """The layers of a dictionary, ascending.

    Raises:
        ArtefactError: the table of firings is missing or broken.
    """
    card = read_card(sources.firing)
    table = _opened(sources.firing, ("layer", "firings")).read(["layer", "firings"])
    layers, firings = (table.column(name).to_numpy() for name in ("layer", "firings"))
    own = card.get("layers", {}).get("tokens", {})  # where layers read different numbers of tokens
    return [
        Layer(
            int(layer),
            int((layers == layer).sum()),
            int((firings[layers == layer] > 0).sum()),
            int(own.get(str(layer), card.get("tokens", 0))),
        )
        for layer in np.unique(layers)
    ]


def read_records(sources: Sources) -> Iterator[LatentRecord]:
    """Every live latent, by layer and latent. Memory holds a few hundred rows of each file.

    Raises:
        ArtefactError: a file is missing, broken, or not in that order, or files are of different dictionaries: one has
            rows of a latent that the table of firings lacks or calls dead, or lacks a live one.
    """
    labels = _labels(sources.labels)
    logits = None if sources.logits is None else _ByLatent(sources.logits, ("model", "raised", "lowered"))
    examples = _ByLatent(sources.examples, ("part", "kind", "tokens", "activations"))
    for key, rows in _by_latent(sources.firing, ("firings", "rate", "histogram")):
        if len(rows) > 1:
            raise ArtefactError(f"{sources.firing} has {len(rows)} rows of latent {key[1]} of layer {key[0]}")
        if rows[0]["firings"] > 0:
            effects = () if logits is None else tuple(logits.take(key))
            yield LatentRecord(*key, rows[0], effects, tuple(map(_short, examples.take(key))), labels.get(key))
    for following in (examples, logits):
        if following is not None:
            following.finish()


class _ByLatent:
    """Follows a file of rows by latent while another one leads.

    Invariant: all groups before `waiting` have been taken.
    """

    def __init__(self, path: str | Path, columns: Iterable[str]):
        self.path, self.groups = path, _by_latent(path, columns)
        self.waiting = next(self.groups, None)

    def take(self, key: Key) -> list[dict[str, Any]]:
        """The rows of a latent."""
        if self.waiting is None or self.waiting[0] != key:
            came = "its end" if self.waiting is None else f"latent {self.waiting[0][1]} of layer {self.waiting[0][0]}"
            self._refuse(f"expected latent {key[1]} of layer {key[0]}, which is live, and came to {came}")
        rows = self.waiting[1]
        self.waiting = next(self.groups, None)
        return rows

    def finish(self) -> None:
        """Nothing is left."""
        if self.waiting is not None:
            layer, latent = self.waiting[0]
            self._refuse(f"it has rows of latent {latent} of layer {layer}, which the table of firings lacks")

    def _refuse(self, why: str) -> None:
        raise ArtefactError(
            f"{self.path} and the table of firings beside it are of different dictionaries: {why}. Delete the older of "
            "the two and run the same command again."
        )


def _by_latent(path: str | Path, columns: Iterable[str]) -> Iterator[tuple[Key, list[dict[str, Any]]]]:
    """((layer, latent), its rows) in stored order, which must be ascending."""
    before: Key | None = None
    for key, rows in groupby(_rows(path, columns), key=lambda row: (row["layer"], row["latent"])):
        if before is not None and key < before:
            raise ArtefactError(
                f"{path} is not ordered by layer and latent: latent {key[1]} of layer {key[0]} comes after "
                f"latent {before[1]} of layer {before[0]}"
            )
        before = key
        yield key, list(rows)


def _rows(path: str | Path, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file; of examples only those that fire, which is half of them."""
    file = _opened(path, columns)
    try:
        # by row group: each has its own dictionary of tokens, and pyarrow cannot join two in a list
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group]):
                yield from (_firing(batch) if "kind" in batch.schema.names else batch).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}). Delete it and run the same command again.") from error


def _firing(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.filter(pc.is_in(batch.column("kind").cast(pa.string()), pa.array(FIRING)))


def _opened(path: str | Path, columns: Iterable[str]) -> pq.ParquetFile:
    read_card(path)  # names a missing or broken file
    file = pq.ParquetFile(path)
    if missing := [name for name in ("layer", "latent", *columns) if name not in file.schema_arrow.names]:
        raise ArtefactError(f"{path} lacks the column(s) {', '.join(missing)}")
    return file


def _labels(path: str | Path | None) -> dict[Key, Mapping[str, Any]]:
    """The rows of labels.json that have a label; each knows its provider and model."""
    if path is None:
        return {}
    content = read_json(path)
    given = {"provider": content["provider"], "model": content["model"]}
    rows = [{**row, **given} for row in content["latents"] if row["status"] == "labelled"]
    return {(row["layer"], row["latent"]): row for row in rows}


def _short(example: Mapping[str, Any]) -> dict[str, Any]:
    return {**example, "activations": plain(example["activations"]), "value": plain([example["value"]])[0]}


def plain(values: Iterable[float]) -> list[float]:
    """float32 numbers with the fewest digits that give the same float32 again: 0.1, not 0.10000000149011612."""
    return [0.0 if value == 0 else float(str(np.float32(value))) for value in values]
