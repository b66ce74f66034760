"""How does the state of a training reach the disk and come back bit for bit, without pickle?

A checkpoint is a safetensors file. The header holds, as JSON, all of the state that is no tensor; the last tensor is a
checksum of every byte before it, since nothing else would notice a flipped bit. The tensors are written one after the
other, so that what lies on a card is never held a second time by the host.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from reasondiff.store import ArtefactError, replacing

CHECKSUM = "checksum"
CHECKSUM_BYTES = 4
PIECE_BYTES = 2**26
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_checkpoint(path: Path, state: dict[Any, Any]) -> None:
    """Writes a state, whole or not at all: dictionaries, lists and tuples, at any depth, of tensors, numbers, text and
    None.

    Raises:
        TypeError: the state holds something else.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_as_json(state, tensors))
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))  # each at a multiple of its size
    with replacing(path) as temporary, open(temporary, "wb") as file:
        header = _header(text, ordered)
        file.write(header)
        checksum = zlib.crc32(header)
        for tensor in ordered.values():
            data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            file.write(data)
            checksum = zlib.crc32(data, checksum)
        file.write(checksum.to_bytes(CHECKSUM_BYTES, "little"))


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """The state as it was written, its tensors on the CPU; they stay on the disk until they are read.

    Raises:
        ArtefactError: the file is truncated, changed, or no checkpoint.
    """
    try:
        _refuse_changed(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return _from_json(json.loads(file.metadata()["state"]), tensors)
    except Exception as error:
        raise ArtefactError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}: {error}). Delete it and run the same "
            "command again: its dictionaries are trained anew."
        ) from error


def _header(text: str, tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a safetensors file before its data: their number, then names, types, shapes and places as JSON.

    Source: https://github.com/huggingface/safetensors#format
    """
    entries: dict[str, Any] = {"__metadata__": {"state": text}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    entries[CHECKSUM] = {"dtype": "U8", "shape": [CHECKSUM_BYTES], "data_offsets": [end, end + CHECKSUM_BYTES]}
    body = json.dumps(entries, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    return len(body).to_bytes(8, "little") + body


def _refuse_changed(path: Path) -> None:
    left, checksum = path.stat().st_size - CHECKSUM_BYTES, 0
    with open(path, "rb") as file:
        while left > 0:
            piece = file.read(min(left, PIECE_BYTES))
            left -= len(piece)
            checksum = zlib.crc32(piece, checksum)
        if file.read() != checksum.to_bytes(CHECKSUM_BYTES, "little"):
            raise ValueError("its checksum is that of other content: it is truncated or was changed on the disk")


def _as_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON; what JSON has no form for stands in an object with one key, and tensors go to `tensors`."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _as_json(one, tensors)] for key, one in value.items()]}  # keys may be numbers
    if isinstance(value, tuple):
        return {"tuple": [_as_json(one, tensors) for one in value]}
    if isinstance(value, list):
        return [_as_json(one, tensors) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds no {type(value).__name__}")


def _from_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_from_json(one, tensors) for one in content)
    return {key: _from_json(one, tensors) for key, one in content}
