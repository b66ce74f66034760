"""How do chosen windows become the columns of the table of examples, without a Python object for each token?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int

from reasondiff.latents.example_table import KINDS, SCHEMA
from reasondiff.latents.windows import Windows, document_of
from reasondiff.store import ArtefactError
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import TokenTable

PARTS = ("choose", "score")
# A row before it has its window: `part` and `kind` are indices into PARTS and KINDS, `token` into the token table.
ROW_COLUMNS = {
    "latent": np.int32, "part": np.int8, "kind": np.int8, "place": np.int16, "token": np.int64, "value": np.float32
}  # fmt: skip


def rows_of(part: str, kind: str, latent: np.ndarray, place: np.ndarray, token: np.ndarray, value=0.0) -> pd.DataFrame:
    """Rows of one part and kind, with the columns `ROW_COLUMNS`."""
    given = {"latent": latent, "part": PARTS.index(part), "kind": KINDS.index(kind), "place": place, "token": token}
    frame = pd.DataFrame({**given, "value": value}, index=range(len(latent)))
    return frame.astype(ROW_COLUMNS)


def in_order(rows: pd.DataFrame) -> Int[np.ndarray, " row"]:
    """The order of the table: by latent, part, kind, place, and token where the place is a quantile's number."""
    return np.lexsort([rows[name].to_numpy() for name in ("token", "place", "kind", "part", "latent")])


def filled(
    windows: Windows,
    value: Float[np.ndarray, " window"],
    row: Int[np.ndarray, " entry"],
    offset: Int[np.ndarray, " entry"],
    activation: Float[np.ndarray, " entry"],
) -> Float[np.ndarray, " token"]:
    """The activations of all windows, one window after the other, from those that are not zero. At the centre `value`
    stands: what was found there on the first reading, equal to the second one up to rounding."""
    ends = np.cumsum(windows.lengths())
    starts = ends - windows.lengths()
    whole = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.float32)
    whole[starts[row] + offset] = activation
    whole[starts + windows.centre - windows.first] = value
    return whole


def example_table(
    layer: int,
    rows: pd.DataFrame,
    windows: Windows,
    activations: Float[np.ndarray, " token"],
    table: TokenTable,
    words: Sequence[str],
    model: str,
) -> pa.Table:
    """A table of `example_table.SCHEMA` from rows in order, with their windows and activations.

    Raises:
        ArtefactError: `words` do not cover the ids of the text.
    """
    document = document_of(table, windows.centre)
    starts = table.starts[document]
    offsets = pa.array(np.append(0, np.cumsum(windows.lengths())).astype(np.int32))
    correct = table.correct[document]
    columns = {
        "layer": pa.array(np.full(len(rows), layer, dtype=np.int16)),
        "latent": rows["latent"].to_numpy(),
        "part": _named(rows["part"].to_numpy(), PARTS),
        "kind": _named(rows["kind"].to_numpy(), KINDS),
        "place": rows["place"].to_numpy(),
        "document": document.astype(np.int32),
        "problem": table.problem[document],
        "position": (windows.centre - starts).astype(np.int32),
        "phase": _named(table.phases[windows.centre], PHASES),
        "value": rows["value"].to_numpy(),
        "correct": pa.array(correct == 1, mask=correct < 0),
        "model": _named(np.zeros(len(rows)), [model]),
        "start": (windows.first - starts).astype(np.int32),
        "tokens": pa.ListArray.from_arrays(offsets, _token_strings(table.ids[windows.tokens()], words)),
        "activations": pa.ListArray.from_arrays(offsets, pa.array(activations)),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _named(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(names), pa.string()))


def _token_strings(ids: Int[np.ndarray, " token"], words: Sequence[str]) -> pa.DictionaryArray:
    """The string of each id, by a dictionary of just those that occur."""
    if len(ids) and ids.max() >= len(words):
        raise ArtefactError(
            f"the text has id {ids.max()}, but the tokenizer has {len(words)} ids: it is not the one the text was "
            "tokenised with. Give the tokenizer that the pair (or the model's transcoders) declares."
        )
    occurs = np.zeros(len(words), dtype=bool)
    occurs[ids] = True
    used = np.flatnonzero(occurs)
    # ids may share a string: parts of characters do
    number, strings = pd.factorize(np.array([words[i] for i in used], dtype=object))
    number_of_id = np.zeros(len(words), dtype=np.int32)
    number_of_id[used] = number
    return pa.DictionaryArray.from_arrays(pa.array(number_of_id[ids]), pa.array(list(strings), pa.string()))
