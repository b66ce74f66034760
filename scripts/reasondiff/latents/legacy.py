"""How did the two studies before this one keep their examples?

The crosscoder study: a dict latent -> list of (max, tokens, activations), strongest first, here as JSON (a pickle runs
code when it is read); and SQLite, `data_table(key INTEGER PRIMARY KEY, examples TEXT)` with the same list as JSON. The
circuits study: a JSON file for each layer of transcoders. Only strongest examples, as there; those of both parts.

Source: docs/methods.md §7.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reasondiff.latents.records import LatentRecord, Layer, plain

EXAMPLES, DATABASE = "max_activating_examples.json", "max_activating_examples.db"
Add = Callable[[LatentRecord], None]


def tuples(record: LatentRecord) -> list[tuple[float, list[str], list[float]]]:
    """(max, tokens, activations) of the strongest examples, falling."""
    rows = [(example["activations"], example["tokens"]) for example in record.strongest()]
    return [(max(values), tokens, values) for values, tokens in rows]


def layer_file(layer: int) -> str:
    """The name of a layer's file in the circuits study."""
    return f"activations_layer{layer}.json"


def layer_feature(record: LatentRecord) -> dict[str, Any]:
    """A latent as the circuits study has it. `token_offset` is the place in its document, where that study counted
    through one text without documents."""
    return {
        "activation_frequency": float(record.firing["rate"]),
        "max_activation": plain([record.firing["max_activation"]])[0],
        "activation_count": record.firing["firings"],
        "top_examples": [
            {
                "activation": example["value"],
                "token_offset": example["position"],
                "context": "".join(example["tokens"]),
            }
            for example in record.strongest()
        ],
    }


# --------------------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def crosscoder_files(folder: Path) -> Iterator[Add]:
    """Yields a function that writes a latent into the JSON file and the database in `folder`."""
    with _json_object(folder / EXAMPLES) as put, _database(folder / DATABASE) as insert:

        def add(record: LatentRecord) -> None:
            rows = tuples(record)
            put(str(record.latent), rows)
            insert(record.latent, json.dumps(rows, ensure_ascii=False))

        yield add


@contextlib.contextmanager
def transcoder_files(folder: Path, layers: Sequence[Layer]) -> Iterator[Add]:
    """Yields a function that writes a latent into its layer's file in `folder`; every layer gets one."""
    with contextlib.ExitStack() as stack:
        puts = {layer.layer: stack.enter_context(_layer_object(folder, layer)) for layer in layers}

        def add(record: LatentRecord) -> None:
            puts[record.layer](str(record.latent), layer_feature(record))

        yield add


@contextlib.contextmanager
def _layer_object(folder: Path, layer: Layer) -> Iterator[Callable[[str, Any], None]]:
    head = {
        "layer": layer.layer,
        "total_tokens": layer.tokens,
        "n_features": layer.latents,
        "n_active_features": layer.live,
    }
    start = json.dumps(head).removesuffix("}") + ', "features": {'
    with _json_object(folder / layer_file(layer.layer), start, "}}\n") as put:
        yield put


@contextlib.contextmanager
def _json_object(path: Path, start: str = "{", end: str = "}\n") -> Iterator[Callable[[str, Any], None]]:
    """Yields a function that writes one more key with its value; so an object of any size is never in memory."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(start)
        between = "\n"

        def put(key: str, value: Any) -> None:
            nonlocal between
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            file.write(f"{between}{json.dumps(key)}: {text}")
            between = ",\n"

        yield put
        file.write("\n" + end)


@contextlib.contextmanager
def _database(path: Path) -> Iterator[Callable[[int, str], None]]:
    """Yields a function that inserts a row; without a journal, since a file that was not finished is thrown away."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        database.execute("CREATE TABLE data_table (key INTEGER PRIMARY KEY, examples TEXT)")
        yield lambda key, text: database.execute("INSERT INTO data_table (key, examples) VALUES (?, ?)", (key, text))
        database.execute("COMMIT")
