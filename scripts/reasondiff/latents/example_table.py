"""How are the examples of all latents of a dictionary kept, so that those of a few are read quickly?

One Parquet row per example: a window of tokens with the latent's activation on each. Tokens are dictionary-encoded
strings, rows are ordered by layer and latent, and row groups are small: a reader of fifty latents reads fifty pieces.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reasondiff.store import ArtefactError, appending, read_card

FIRING = ("strongest", "quantile")
SILENT = ("random", "same_token", "neighbour")
KINDS = (*FIRING, *SILENT)
ROWS_PER_GROUP = 2048

_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("layer", pa.int16()),
        ("latent", pa.int32()),
        ("part", _WORD),  # `choose`: may be shown to a labeller; `score`: labels are scored on it
        ("kind", _WORD),  # one of KINDS; in windows of the kinds SILENT the latent is active nowhere
        ("place", pa.int16()),  # rank from 0 (strongest), quantile from 0 (weakest), or a running number
        ("document", pa.int32()),  # index into the token table
        ("problem", pa.int32()),
        ("position", pa.int32()),  # in the document, of the firing (silent windows: of the token they stand around)
        ("phase", _WORD),  # of the token at `position`
        ("value", pa.float32()),  # activation at `position`
        ("correct", pa.bool_()),  # of the trace; null where that is not known
        ("model", _WORD),  # the model, or the pair, whose activations were read
        ("start", pa.int32()),  # position of the window's first token
        ("tokens", pa.list_(_WORD)),
        ("activations", pa.list_(pa.float32())),  # 0 on masked tokens, which no dictionary was trained on
    ]
)


def write_examples(path: str | Path, tables: pa.Table | Iterable[pa.Table], card: Mapping[str, Any]) -> int:
    """Writes a table of `SCHEMA`, ordered by layer, latent, part, kind and place, or pieces of it one after the other,
    so that no more than one is in memory; returns how many rows.

    Raises:
        ValueError: the columns or their types are others.
    """
    rows = 0
    with appending(path, SCHEMA, card) as write:
        for table in [tables] if isinstance(tables, pa.Table) else tables:
            if not table.schema.equals(SCHEMA, check_metadata=False):
                raise ValueError(f"expected the columns of example_table.SCHEMA, came {table.schema}")
            write(table, ROWS_PER_GROUP)
            rows += len(table)
    return rows


def read_examples(
    path: str | Path,
    latents: Iterable[tuple[int, int]] | None = None,
    parts: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Examples as a DataFrame with the columns of `SCHEMA` (tokens and activations as lists), in stored order; only
    those of some `latents` (layer, latent), parts and kinds on request. The card is in `.attrs["card"]`.

    Raises:
        ArtefactError: the file is missing, broken, or no table of examples.
    """
    card = read_card(path)  # names a missing or broken file
    conditions = [(name, "in", list(some)) for name, some in (("part", parts), ("kind", kinds)) if some is not None]
    try:
        table = pq.read_table(path, filters=_of_latents(latents, conditions) or None)
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}). Delete it and run the same command again.") from error
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise ArtefactError(f"{path} lacks the column(s) {', '.join(missing)}: it is no table of examples")
    frame = pd.DataFrame({name: table.column(name).to_pylist() for name in SCHEMA.names})
    frame.attrs["card"] = card
    return frame


def _of_latents(latents: Iterable[tuple[int, int]] | None, conditions: list[tuple]) -> list:
    """Filters for `pq.read_table`: layer by layer, so that the row groups of other layers are not read."""
    if latents is None:
        return conditions
    of_layer: dict[int, set[int]] = {}
    for layer, latent in latents:
        of_layer.setdefault(layer, set()).add(latent)
    nothing = [[("latent", "<", 0)]]
    return [
        [("layer", "=", layer), ("latent", "in", sorted(some)), *conditions] for layer, some in of_layer.items()
    ] or nothing


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of `SCHEMA` from plain rows (small ones: tests, exports)."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
