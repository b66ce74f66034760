"""How large are the models of a study, as far as it can be known before anything is fetched?"""

from __future__ import annotations

import json
from pathlib import Path

from reasondiff.config import Architecture, ModelSize, Study, first_stage, size_of

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}


class NotKnown(ValueError):
    """Something that costs rest on is not said; the message names what would say it."""


def known_sizes(study: Study) -> dict[str, ModelSize | None]:
    """{model: its sizes}: declared in the study, or read from the config.json of a model that was located already;
    None where neither says them."""
    return {name: _declared(study, name) or _located(study, name) for name in study.models}


def _declared(study: Study, name: str) -> ModelSize | None:
    size = size_of(study, name)
    if not isinstance(size, Architecture):
        return size
    vocabulary = study.tokenizers[first_stage(study, name).tokenizer].vocabulary
    return ModelSize(**size.model_dump(exclude={"positions"}), vocabulary=vocabulary, tied=True)


def _located(study: Study, name: str) -> ModelSize | None:
    path = Path(study.results_dir, "models", name, "model.json")
    try:
        folder = path.parent / json.loads(path.read_text(encoding="utf-8"))["folder"]
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = said["num_attention_heads"]
        return ModelSize(
            hidden=said["hidden_size"],
            layers=said["num_hidden_layers"],
            mlp=said["intermediate_size"],
            heads=heads,
            kv_heads=said.get("num_key_value_heads", heads),
            vocabulary=said["vocab_size"],
            tied=said.get("tie_word_embeddings", False),
        )
    except (OSError, ValueError, KeyError):  # a file that is broken is named by the jobs that need it
        return None


def weights(size: ModelSize, blocks: int | None = None) -> int:
    """Weights of a model, biases apart, or of one that was stopped after some blocks; embedding and head stay."""
    keys_and_values = 2 * size.hidden * size.kv_heads * (size.hidden // size.heads)
    block = 2 * size.hidden**2 + keys_and_values + 3 * size.hidden * size.mlp + 2 * size.hidden
    embeddings = size.vocabulary * size.hidden * (1 if size.tied else 2)
    return (size.layers if blocks is None else blocks) * block + embeddings + size.hidden
