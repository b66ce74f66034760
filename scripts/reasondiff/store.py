"""How does an artefact reach the disk whole, and how does a reader learn what made it?

Every file is written to a temporary name in its own folder and then moved into place, so a file in `results/` is
whole or absent. Each carries its *card*: the settings, seeds and input digests that determine its content. What
does not determine the content (commit, versions, device, times) goes to `<file>.run.json` beside it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CARD_LINE = "# card: "
IN_SCRIPT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
NO_ROOM_BYTES = 2**16  # with less than this free, a writer that failed is taken to have failed for want of room


class ArtefactError(ValueError):
    """A file of the study is missing, incomplete, or not what it should be."""


# ----------------------------------------------------------------------------------------------- digests


def digest(data: bytes | str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `data`."""
    raw = data.encode() if isinstance(data, str) else data
    return hashlib.sha256(raw).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """`digest` of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fingerprint(**what: Any) -> str:
    """One digest for everything that determines an artefact; equal settings give equal fingerprints.

    Raises:
        TypeError: a value has no JSON form (a fingerprint of `repr` would differ from run to run).
    """
    return digest(json.dumps(what, sort_keys=True))


# ----------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path; on success it becomes `path` in one step, on failure it disappears.

    Raises:
        ArtefactError: the disk is full or the folder cannot be written, with what to do.
    """
    path = Path(path)
    # the suffix stays the last one, since writers (safetensors, matplotlib) choose the format by it
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with _naming_a_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(folder: str | Path) -> Iterator[Path]:
    """Yields a temporary folder; on success each file in it is moved into `folder`, on failure none is.

    For libraries that write several files at once (models, tokenizers).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".filling-") as temporary, _naming_a_full_disk(folder / "*"):
        yield Path(temporary)
        for file in sorted(Path(temporary).iterdir()):
            os.replace(file, folder / file.name)


@contextlib.contextmanager
def _naming_a_full_disk(path: Path) -> Iterator[None]:
    """Turns the error of a full disk, which each library words in its own way, into one that says what to do."""
    try:
        yield
    except Exception as error:
        folder = next((parent for parent in path.parents if parent.exists()), Path("."))
        free_bytes = shutil.disk_usage(folder).free
        if isinstance(error, OSError):
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        else:  # safetensors and torch lose the number of the system's error
            is_full = free_bytes < NO_ROOM_BYTES
        if not is_full:
            raise
        raise ArtefactError(
            f"no room to write {path}: {free_bytes / 2**20:.0f} MiB are free in {folder}. Free some space, or set "
            "`results_dir` to another disk, and run the same command again: finished files are kept."
        ) from error


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Mapping[str, Any], card: Mapping[str, Any] | None = None) -> None:
    """Writes a JSON object with its card under the key `card`; keys keep their order."""
    whole = {**content, **({"card": dict(card)} if card is not None else {})}
    write_text(path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def as_script(data: Any) -> str:
    """JSON that can stand in a script element whatever text it holds: nothing in it ends the element, opens another, or
    ends a line of script.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(IN_SCRIPT)


def write_json_lines(path: str | Path, rows: list[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_table(path: str | Path, frame: Any, card: Mapping[str, Any]) -> None:
    """Writes a DataFrame by the file's ending: `.tsv` (card in the first line, after `# card: `) or `.parquet`
    (card in the schema metadata, key `card`).

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix == ".tsv":
        body = frame.to_csv(sep="\t", index=False, float_format="%.8g", lineterminator="\n")
        write_text(path, CARD_LINE + _card_text(card) + "\n" + body)
    elif path.suffix == ".parquet":
        import pyarrow as pa

        write_arrow(path, pa.Table.from_pandas(frame, preserve_index=False), card)
    else:
        raise ValueError(f"a table is written as .tsv or .parquet, not as {path.name}")


def write_arrow(path: str | Path, table: Any, card: Mapping[str, Any], rows_per_group: int | None = None) -> None:
    """Writes an Arrow table as Parquet, the card in the schema metadata (key `card`)."""
    import pyarrow.parquet as pq

    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"card": _card_text(card).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=rows_per_group)
    write_bytes(path, buffer.getvalue())


def _card_text(card: Mapping[str, Any]) -> str:
    """The card as one line; equal cards give equal text, whatever the order of their keys."""
    return json.dumps(dict(card), sort_keys=True)


def write_tensors(path: str | Path, tensors: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes named torch tensors as safetensors with the card in the metadata."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"card": _card_text(card)}))


def write_arrays(path: str | Path, arrays: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes named NumPy arrays as one `.npz` with the card as the array `card` (a JSON string)."""
    import numpy as np

    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, card=np.array(_card_text(card)))


# ----------------------------------------------------------------------------------------------- reading


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[Path]:
    """Turns every way in which a file can be broken into one clear error that names it."""
    path = Path(path)
    if not path.exists():
        raise ArtefactError(f"{path} is missing: run the rule that makes it (`snakemake {path}`), or check the path.")
    try:
        yield path
    except ArtefactError:
        raise
    except Exception as error:
        raise ArtefactError(
            f"{path} cannot be read ({type(error).__name__}: {error}). It is truncated or was not written by this "
            "workflow: delete it and run the same command again."
        ) from error


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object, its card under `card`.

    Raises:
        ArtefactError: the file is missing or broken.
    """
    with _reading(path) as path:
        return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, in order."""
    with _reading(path) as path:
        # not splitlines: texts may hold line separators that JSON leaves as they are (U+2028)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_table(path: str | Path) -> Any:
    """A `.tsv` or `.parquet` table as a DataFrame, its card in `.attrs["card"]`.

    Raises:
        ArtefactError: the file is missing or broken.
    """
    with _reading(path) as path:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            frame = pq.read_table(path).to_pandas()
        else:
            frame = _read_tsv(path)
    frame.attrs["card"] = read_card(path)
    return frame


def _read_tsv(path: Path) -> Any:
    import pandas as pd

    text = path.read_text(encoding="utf-8")
    has_card = text.startswith(CARD_LINE)
    if has_card and not text.endswith("\n"):  # pandas would fill the missing cells of the last row
        raise ValueError("its last line is incomplete")
    # a token may be a bare carriage return, which is no line end in the tables written here
    ends = {"lineterminator": "\n"} if has_card else {}
    return pd.read_csv(path, sep="\t", skiprows=int(has_card), keep_default_na=False, na_values=[""], **ends)


def read_tensors(path: str | Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a safetensors file, and its card (empty for files made elsewhere)."""
    from safetensors import safe_open

    with _reading(path) as path, safe_open(path, framework="pt", device=device) as file:
        card = json.loads((file.metadata() or {}).get("card", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, card


def read_card(path: str | Path) -> dict[str, Any]:
    """Only the card of an artefact, without loading its content; `{}` where it has none."""
    with _reading(path) as path:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="np") as file:
                return json.loads((file.metadata() or {}).get("card", "{}"))
        if path.suffix == ".npz":
            import numpy as np

            with np.load(path) as arrays:
                return json.loads(str(arrays["card"])) if "card" in arrays else {}
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8")).get("card", {})
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return json.loads((pq.read_schema(path).metadata or {}).get(b"card", b"{}"))
        with open(path, encoding="utf-8") as file:
            first = file.readline()
        return json.loads(first.removeprefix(CARD_LINE)) if first.startswith(CARD_LINE) else {}


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of an `.npz`, and its card."""
    import numpy as np

    with _reading(path) as path, np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop("card", "{}")))


def is_finished(path: str | Path, expected_fingerprint: str) -> bool:
    """Whether `path` is whole and was made by exactly what `expected_fingerprint` stands for."""
    try:
        return read_card(path).get("fingerprint") == expected_fingerprint
    except ArtefactError:
        return False
