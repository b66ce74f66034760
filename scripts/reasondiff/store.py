"""How does an artefact reach the disk whole, and how does a reader learn what made it?

Every file is written to a temporary name in its own folder and then moved into place, so a file in `results/` is
whole or absent. Each carries its *card*: the settings, seeds and input digests that determine its content. What
does not determine the content (commit, versions, device, times) goes to `<file>.run.json` beside it. The card also
holds the file's *seal*, a digest of its bytes, so that no reader takes a damaged file for a whole one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

CARD_LINE = "# card: "
DIGESTS = "digests.json"  # in a folder that another library wrote: {file: SHA-256}
IN_SCRIPT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
SEAL = "seal"  # key in a card: SHA-256 of the file as it was with UNSEALED in that place
UNSEALED = "0" * 64
CARD_AT_THE_END = (".json", ".parquet")
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
    return sha256(path)[:16]


def sha256(path: str | Path) -> str:
    """The whole SHA-256 of a file's bytes, of which `file_digest` is the beginning."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        with _naming_the_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(folder: str | Path) -> Iterator[Path]:
    """Yields a temporary folder; on success each file in it is moved into `folder`, on failure none is.

    For libraries that write several files at once (models, tokenizers). What they wrote is listed in `DIGESTS`, which
    comes last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".filling-") as temporary, _naming_the_disk(folder / "*"):
        yield Path(temporary)
        files = sorted(Path(temporary).iterdir())
        digests = Path(temporary) / DIGESTS
        write_json(digests, {file.name: sha256(file) for file in files if file.is_file()}, card={})
        (folder / DIGESTS).unlink(missing_ok=True)
        for file in [*files, digests]:
            os.replace(file, folder / file.name)


@contextlib.contextmanager
def _naming_the_disk(path: Path) -> Iterator[None]:
    """Turns the error of a disk that is full, which each library words in its own way, or that is read-only into one
    that says what to do."""
    try:
        yield
    except Exception as error:
        folder = existing_parent(path.parent)
        free_bytes = shutil.disk_usage(folder).free
        if isinstance(error, OSError):
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        else:  # safetensors and torch lose the number of the system's error
            is_full = free_bytes < NO_ROOM_BYTES
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            raise ArtefactError(
                f"{path} cannot be written: {folder} is read-only. Mount it for writing, or set `results_dir` to "
                "another place, and run the same command again: finished files are kept."
            ) from error
        if not is_full:
            raise
        raise ArtefactError(
            f"no room to write {path}: {free_bytes / 2**20:.0f} MiB are free in {folder}. Free some space, or set "
            "`results_dir` to another disk, and run the same command again: finished files are kept."
        ) from error


def existing_parent(path: str | Path) -> Path:
    """The path itself or, where it does not exist yet, the nearest folder above it that does."""
    path = Path(path)
    return next((place for place in (path, *path.parents) if place.exists()), Path("."))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Mapping[str, Any], card: Mapping[str, Any] | None = None) -> None:
    """Writes a JSON object with its card under the key `card`; keys keep their order. Without a card it has no seal."""
    whole = {**content, **({"card": {**card, SEAL: UNSEALED}} if card is not None else {})}
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    with replacing(path) if card is None else _sealing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def as_script(data: Any) -> str:
    """JSON that can stand in a script element whatever text it holds: nothing in it ends the element, opens another, or
    ends a line of script.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(IN_SCRIPT)


def write_json_lines(path: str | Path, rows: list[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, after a first line with nothing but the card."""
    lines = [{"card": {SEAL: UNSEALED}}, *rows]
    with _sealing(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines), encoding="utf-8")


def write_table(path: str | Path, frame: Any, card: Mapping[str, Any]) -> None:
    """Writes a DataFrame by the file's ending: `.tsv` (card in the first line, after `# card: `) or `.parquet`
    (card in the schema metadata, key `card`).

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix == ".tsv":
        body = frame.to_csv(sep="\t", index=False, float_format="%.8g", lineterminator="\n")
        with _sealing(path) as temporary:
            temporary.write_bytes((CARD_LINE + _card_text(card) + "\n" + body).encode())
    elif path.suffix == ".parquet":
        import pyarrow as pa

        write_arrow(path, pa.Table.from_pandas(frame, preserve_index=False), card)
    else:
        raise ValueError(f"a table is written as .tsv or .parquet, not as {path.name}")


def write_arrow(path: str | Path, table: Any, card: Mapping[str, Any], rows_per_group: int | None = None) -> None:
    """Writes an Arrow table as Parquet, the card in the schema metadata (key `card`)."""
    with appending(path, table.schema, card) as append:
        append(table, rows_per_group)


@contextlib.contextmanager
def appending(path: str | Path, schema: Any, card: Mapping[str, Any]) -> Iterator[Callable[[Any, int | None], None]]:
    """Yields `append(table, rows_per_group)`, which adds an Arrow table of this schema to a Parquet file, whole or not
    at all in the end: what has been added is no longer in memory. The card is in the schema metadata (key `card`)."""
    import pyarrow.parquet as pq

    with_card = schema.with_metadata({**(schema.metadata or {}), b"card": _card_text(card).encode()})
    with _sealing(path) as temporary, pq.ParquetWriter(temporary, with_card, compression="zstd") as writer:
        yield lambda table, rows_per_group: writer.write_table(table, row_group_size=rows_per_group)


def _card_text(card: Mapping[str, Any]) -> str:
    """The card as one line with a place for the seal; equal cards give equal text, however their keys are ordered."""
    return json.dumps({**card, SEAL: UNSEALED}, sort_keys=True)


def write_tensors(path: str | Path, tensors: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes named torch tensors as safetensors with the card in the metadata."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _sealing(path) as temporary:
        temporary.write_bytes(save(plain, metadata={"card": _card_text(card)}))


def write_arrays(path: str | Path, arrays: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes named NumPy arrays as one `.npz` with the card as the array `card` (a JSON string). The format has a
    checksum of each array, and so no seal."""
    import numpy as np

    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, card=np.array(json.dumps(dict(card), sort_keys=True)))


# ----------------------------------------------------------------------------------------------- seals


@contextlib.contextmanager
def _sealing(path: str | Path) -> Iterator[Path]:
    """`replacing` for a file that holds a card: its seal is put in before it is moved."""
    with replacing(path) as temporary:
        yield temporary
        with open(temporary, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            file.seek(_place_of(data, UNSEALED, temporary.suffix))
            file.write(hashlib.sha256(data).hexdigest().encode())


def _place_of(data: mmap.mmap, seal: str, suffix: str) -> int:
    """Where the seal of a file stands. It is looked for from the end at which the card is: in between may be gigabytes,
    and any text."""
    before = f'"{SEAL}": "'
    if suffix == ".safetensors":  # JSON in JSON
        before = before.replace('"', '\\"')
    find = data.rfind if suffix in CARD_AT_THE_END else data.find
    place = find((before + seal).encode())
    return place if place < 0 else place + len(before)


def check_whole(path: str | Path) -> None:
    """Compares a file's bytes with its seal, or with the checksums of its format (`.npz`); about a second for each
    gigabyte, and once in a process as long as the file stays as it is. A file without a seal (made elsewhere) passes.

    Raises:
        ArtefactError: the file is missing or damaged.
    """
    with _reading(path) as path:
        found = os.stat(path)
        _check_whole(str(path), found.st_mtime_ns, found.st_size)


@functools.cache
def _check_whole(path: str, _changed_ns: int, _size: int) -> None:
    if path.endswith(".npz"):
        with zipfile.ZipFile(path) as file:
            if (broken := file.testzip()) is not None:
                raise ValueError(f"the checksum of {broken} is wrong")
        return
    seal = _card_with_seal(Path(path)).get(SEAL)
    if seal is None:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = _place_of(data, seal, Path(path).suffix)
        with memoryview(data) as view:
            found = hashlib.sha256(view[:place])
            found.update(UNSEALED.encode())
            found.update(view[place + len(UNSEALED) :])
    if place < 0 or found.hexdigest() != seal:
        raise ValueError("its bytes do not give the seal in its card")


def check_folder(folder: str | Path) -> None:
    """Compares the files of a folder with those that `filling` put there, or, in the hub's cache, with the digests by
    which it names large files; each once in a process. Other folders pass.

    Raises:
        ArtefactError: naming the file that is missing or damaged.
    """
    folder = Path(folder)
    if (folder / DIGESTS).exists():
        listed = {name: sha for name, sha in read_json(folder / DIGESTS).items() if name != "card"}
    else:
        stored = {file.name: file.resolve().name for file in folder.glob("*.safetensors")}
        listed = {name: blob for name, blob in stored.items() if re.fullmatch("[0-9a-f]{64}", blob)}
    for name, expected in listed.items():
        with _reading(folder / name) as path:
            found = os.stat(path)
            if _sha256_once(str(path), found.st_mtime_ns, found.st_size) != expected:
                raise ValueError("its bytes do not give the digest noted when it came here")


@functools.cache
def _sha256_once(path: str, _changed_ns: int, _size: int) -> str:
    return sha256(path)


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
            f"{path} cannot be read ({type(error).__name__}: {error}). It is truncated or damaged, was edited, or was "
            "not written by this workflow: delete it and run the same command again."
        ) from error


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object, its card under `card`.

    Raises:
        ArtefactError: the file is missing or broken.
    """
    check_whole(path)
    with _reading(path) as path:
        content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict) and isinstance(content.get("card"), dict):
        content["card"].pop(SEAL, None)
    return content


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, in order, without its card."""
    check_whole(path)
    with _reading(path) as path:
        # not splitlines: texts may hold line separators that JSON leaves as they are (U+2028)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return rows[1:] if rows[0].keys() == {"card"} else rows


def read_table(path: str | Path) -> Any:
    """A `.tsv` or `.parquet` table as a DataFrame, its card in `.attrs["card"]`.

    Raises:
        ArtefactError: the file is missing or broken.
    """
    check_whole(path)
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
    if text.startswith("#") and not has_card:
        raise ValueError("its first line is no card")
    # a token may be a bare carriage return, which is no line end in the tables written here
    ends = {"lineterminator": "\n"} if has_card else {}
    return pd.read_csv(path, sep="\t", skiprows=int(has_card), keep_default_na=False, na_values=[""], **ends)


def read_tensors(path: str | Path, device: str = "cpu") -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a safetensors file, and its card (empty for files made elsewhere)."""
    from safetensors import safe_open

    card = read_card(path)
    with _reading(path) as path, safe_open(path, framework="pt", device=device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, card


def read_card(path: str | Path) -> dict[str, Any]:
    """Only the card of an artefact, without its seal and without loading its content; `{}` where it has none.

    Raises:
        ArtefactError: the file is missing or damaged, be it in its content.
    """
    check_whole(path)
    with _reading(path) as path:
        return {key: value for key, value in _card_with_seal(path).items() if key != SEAL}


def _card_with_seal(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            return json.loads((file.metadata() or {}).get("card", "{}"))
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path) as arrays:
            return json.loads(str(arrays["card"])) if "card" in arrays else {}
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        return content.get("card", {}) if isinstance(content, dict) else {}
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        # not the schema: pyarrow takes its metadata from a second copy, which has no seal yet
        return json.loads((pq.read_metadata(path).metadata or {}).get(b"card", b"{}"))
    with open(path, encoding="utf-8") as file:
        first = file.readline()
    if path.suffix == ".jsonl":
        return json.loads(first).get("card", {})
    return json.loads(first.removeprefix(CARD_LINE)) if first.startswith(CARD_LINE) else {}


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of an `.npz`, and its card."""
    import numpy as np

    check_whole(path)
    with _reading(path) as path, np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop("card", "{}")))


def is_finished(path: str | Path, expected_fingerprint: str) -> bool:
    """Whether `path` is whole and was made by exactly what `expected_fingerprint` stands for."""
    try:
        return read_card(path).get("fingerprint") == expected_fingerprint
    except ArtefactError:
        return False
