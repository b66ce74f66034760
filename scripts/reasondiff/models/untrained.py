"""What were the models before any training? Copies with the same config and random weights.

What a dictionary finds in their activations is in the tokens and the architecture, not learnt by the models.

Source: Heap et al. 2025, arXiv 2501.17727 (sparse autoencoders on random transformers).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reasondiff.models.load import ModelInfo, describe_model, info_to_json, read_info
from reasondiff.models.pairing import open_stream
from reasondiff.models.stream import ActivationStream
from reasondiff.store import digest, write_json


def open_untrained_stream(
    models: Sequence[str], tokens: str, alignment: str, layers: Sequence[int], seed: int, **reading: Any
) -> ActivationStream:
    """`open_stream` on random copies of the models. Equal models and seed give equal activations."""
    with tempfile.TemporaryDirectory() as scratch:
        copies = write_untrained(models, seed, scratch)
        return open_stream(copies, tokens, alignment, layers, **reading)  # which holds them in memory


def write_untrained(models: Sequence[str], seed: int, folder: str | Path) -> list[str]:
    """The `model.json` files of random copies of the models, written under `folder`.

    All weights, embedding and unembedding among them, are drawn as the architecture draws them before training. Each
    model gets a draw of its own, also where two have one config: nothing is shared but the architecture.
    """
    written = []
    for side, path in enumerate(models):
        own = Path(folder) / str(side)
        info = _write_copy(read_info(path), f"{seed}/{side}", own)
        write_json(own / "model.json", info_to_json(replace(info, folder=str(own.resolve()))))
        written.append(str(own / "model.json"))
    return written


def _write_copy(info: ModelInfo, seed: str, folder: Path) -> ModelInfo:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(int(digest(seed.encode())[:15], 16))
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(info.folder), dtype=torch.float32)
    model.save_pretrained(folder)
    return describe_model(f"{info.name}, random weights", folder, info.unseen_ids, info.untrained_tokens)
