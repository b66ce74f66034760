"""What reasoning training changed inside a language model.

`reasondiff.load(path)` opens any artefact of a study in a notebook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(path: str | Path) -> Any:
    """An artefact by its file name: a `Crosscoder` from `crosscoder.safetensors`, a `Transcoder` from
    `sae.safetensors`, a `TokenTable` from `tokens.npz`, a `ModelInfo` from `model.json`, a DataFrame from `.tsv` and
    `.parquet` (its card in `.attrs["card"]`), and a dictionary from other JSON files.

    Raises:
        ArtefactError: the file is missing, broken, or of no kind that a study writes.
    """
    from reasondiff import store

    path = Path(path)
    if path.name == "sae.safetensors":
        from reasondiff.dictionaries.transcoder import load_transcoder

        return load_transcoder(path.parent)
    if path.suffix == ".safetensors" and path.name != "model.safetensors":
        from reasondiff.dictionaries.crosscoder import load_crosscoder

        return load_crosscoder(path)
    if path.name == "tokens.npz":
        from reasondiff.text.tokens import load_tokens

        return load_tokens(path)
    if path.name == "model.json":
        from reasondiff.models.load import read_info

        return read_info(path)
    if path.suffix in (".tsv", ".parquet"):
        return store.read_table(path)
    if path.suffix == ".json":
        return store.read_json(path)
    raise store.ArtefactError(
        f"{path} is of no kind that a study writes: expected .safetensors, .npz, .tsv, .parquet, .json"
    )
