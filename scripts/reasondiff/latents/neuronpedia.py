"""How does a latent look in Neuronpedia's export of features?

A folder `<model>/<source>/` with gzipped JSON lines in `features/`, `activations/` and `explanations/`, one file per
`LATENTS_PER_FILE` latents: what an instance's importer reads. A line of `features/` is the whole Feature as the API
gives it, its activations and explanations inside, so that it is of use without the rest; the importer ignores keys
that are no columns. `createdAt` is left to the database. The instance must know the model, the source set
(`Source.set_name`) and the source beforehand: what they are called and whose they are is not ours to say.

A crosscoder's latent belongs to both models: it stands under each, with that model's logits and the same activations.

Source: hijohnnylin/neuronpedia, apps/webapp/prisma/schema.prisma (Neuron, Activation, Explanation),
apps/webapp/lib/db/import.ts and app/api/admin/import/route.ts (one INSERT per file; columns are those of its first
line); SAEDashboard's converter for bins (-1 for the strongest).
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasondiff.latents.records import LatentRecord, plain
from reasondiff.store import ArtefactError

LATENTS_PER_FILE = 256  # an instance inserts a file at once; 200 MB are too much for it
CREATOR = "clkht01d40000jv08hvalcvly"  # the user that a new instance starts with (DEFAULT_CREATOR_ID of its .env)
TABLES = ("features", "activations", "explanations")
TOP_BIN = -1.0  # what stands for "the strongest, of no quantile"


@dataclass(frozen=True)
class Names:
    """How a dictionary is called: the source of layer 3 is `3-<set_name>`; `of` is the model, or the pair."""

    set_name: str
    of: str

    def source(self, layer: int) -> str:
        return f"{layer}-{self.set_name}"


def slug(name: str) -> str:
    """A name of lower-case letters, digits and dashes, as models and sources have it there."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def model_ids(record: LatentRecord, names: Names) -> list[str]:
    """The model of each of a latent's logit effects; where a pair is a model with itself, the second gets a number.
    Without logit effects one: what the dictionary is of."""
    found: list[str] = []
    for row in record.logits or ({"model": names.of},):
        name = slug(row["model"])
        found.append(name if name not in found else f"{name}-{len(found)}")
    return found


def feature(
    record: LatentRecord, model: str, source: str, side: int, edges: Sequence[float], quantiles: int
) -> dict[str, Any]:
    """The Feature of a latent in one of its models: its row of logit effects is number `side`."""
    key = {"modelId": model, "layer": source, "index": str(record.latent)}
    effects = record.logits[side] if record.logits else {"raised": [], "raised_by": [], "lowered": [], "lowered_by": []}
    heights, values = bars(record.firing["histogram"], edges)
    neighbour = record.firing.get("neighbour", -1)
    return {
        **key,
        "creatorId": CREATOR,
        "maxActApprox": plain([record.firing["max_activation"]])[0],
        "frac_nonzero": float(record.firing["rate"]),
        "pos_str": shown(effects["raised"]),
        "pos_values": plain(effects["raised_by"]),
        "neg_str": shown(effects["lowered"]),
        "neg_values": plain(effects["lowered_by"]),
        "freq_hist_data_bar_heights": heights,
        "freq_hist_data_bar_values": values,
        "topkCosSimIndices": [neighbour] if neighbour >= 0 else [],
        "topkCosSimValues": plain([record.firing["neighbour_cosine"]]) if neighbour >= 0 else [],
        "activations": activations(record, key, quantiles),
        "explanations": explanations(record, key),
    }


def bars(histogram: Sequence[int], edges: Sequence[float]) -> tuple[list[int], list[float]]:
    """(heights, values): firings per bar and the middle of each bar's activations, lists of one length. Empty bars at
    both ends are left out; the first bin reaches down to 0, the last has no end and stands at its edge.

    Raises:
        ArtefactError: there are not as many edges as the bins have between them.
    """
    if len(histogram) != len(edges) + 1:
        raise ArtefactError(
            f"a histogram of {len(histogram)} bins has {len(histogram) - 1} edges between them; the card of the table "
            f"of firings has {len(edges)}: delete it and run the same command again"
        )
    bounds = [0.0, *edges, edges[-1]] if len(edges) else [0.0, 0.0]
    filled = np.flatnonzero(histogram)
    chosen = range(filled[0], filled[-1] + 1) if len(filled) else range(0)
    return [int(histogram[bin]) for bin in chosen], plain([(bounds[bin] + bounds[bin + 1]) / 2 for bin in chosen])


def activations(record: LatentRecord, key: Mapping[str, str], quantiles: int) -> list[dict[str, Any]]:
    """The Activations of a latent: its examples in stored order."""
    spans = _spans(record)
    rows = []
    for number, example in enumerate(record.examples):
        values = example["activations"]
        top = example["kind"] == "strongest"
        low, high = spans[example["part"], example["place"]] if not top else (TOP_BIN, max(values))
        rows.append(
            {
                "id": "-".join([*key.values(), str(number)]),
                **key,
                "tokens": shown(example["tokens"]),
                "values": values,
                "maxValue": max(values),
                "maxValueTokenIndex": values.index(max(values)),
                "minValue": min(values),
                "binMin": low,
                "binMax": high,
                "binContains": TOP_BIN if top else 1 / quantiles,  # share of the sampled firings in the bin
                "qualifyingTokenIndex": example["position"] - example["start"],
                "dataIndex": f"{example['document']}:{example['position']}",
                "dataSource": example["part"],
                "creatorId": CREATOR,
            }
        )
    return rows


def _spans(record: LatentRecord) -> dict[tuple[str, int], tuple[float, float]]:
    """{(part, quantile): (smallest, largest activation)} among the examples of a quantile."""
    found: dict[tuple[str, int], list[float]] = {}
    for example in record.examples:
        if example["kind"] == "quantile":
            found.setdefault((example["part"], example["place"]), []).append(example["value"])
    return {quantile: (min(values), max(values)) for quantile, values in found.items()}


def explanations(record: LatentRecord, key: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Explanation of a latent that has a label, else none. Who wrote it stands in the notes: the offline provider
    describes a pattern of the shown contexts, and its words are no interpretation."""
    if record.label is None:
        return []
    writer = record.label["model"] or f"{record.label['provider']} provider (a pattern of the contexts)"
    return [
        {
            "id": "-".join([*key.values(), "label"]),
            **key,
            "description": record.label["label"],
            "authorId": CREATOR,
            "notes": f"{writer}: {record.label['explanation']}",
        }
    ]


# --------------------------------------------------------------------------------------------------- files


class Writer:
    """Writes latents, given in order, into the folders of their models and sources.

    Invariant: at most one layer's files are open, one of each kind and model.
    """

    def __init__(self, folder: Path, names: Names, edges: Sequence[float], quantiles: int):
        self.folder, self.names, self.edges, self.quantiles = folder, names, edges, quantiles
        self.open, self.files = ExitStack(), {}
        self.layer, self.written = None, 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.open.close()

    def add(self, record: LatentRecord) -> None:
        if record.layer != self.layer:
            self.layer, self.written = record.layer, 0
        if self.written % LATENTS_PER_FILE == 0:
            self.open.close()
            self.files = {}
        source = self.names.source(record.layer)
        for side, model in enumerate(model_ids(record, self.names)):
            whole = feature(record, model, source, side, self.edges, self.quantiles)
            for table, rows in zip(TABLES, ([whole], whole["activations"], whole["explanations"]), strict=True):
                for row in rows:
                    self._file(model, source, table).write(line(row))
        self.written += 1

    def _file(self, model: str, source: str, table: str) -> io.TextIOWrapper:
        """The open file; it is made with its first line, since an importer does not read an empty one."""
        if (model, table) not in self.files:
            path = self.folder / model / source / table / f"batch-{self.written // LATENTS_PER_FILE}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = self.open.enter_context(open(path, "wb"))
            # neither time nor name in the header: equal content gives equal bytes
            packed = self.open.enter_context(gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0))
            self.files[model, table] = self.open.enter_context(io.TextIOWrapper(packed, "utf-8", newline="\n"))
        return self.files[model, table]


def line(row: Mapping[str, Any]) -> str:
    """One JSON line."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def shown(tokens: Sequence[str]) -> list[str]:
    """The tokens as a database takes them: Postgres has no text with a NUL, so it becomes a space."""
    return [token.replace("\0", " ") for token in tokens]


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that `Writer` wrote."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for text in file:
            yield json.loads(text)
