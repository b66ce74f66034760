"""How does a stage of the tiny chain become an ordinary Hugging Face folder?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasondiff.config import Model
from reasondiff.models.chain import TrainedStage, build_model, train_stage
from reasondiff.models.load import ModelInfo, describe_model, info_to_json, load_model
from reasondiff.models.reinforce import reinforce
from reasondiff.models.reparametrisation import random_rotation, reparametrised
from reasondiff.store import filling, write_json
from reasondiff.text.corpus import Keep


def train_model(settings: Model, parent: ModelInfo | None, tokenizer: Any, keep: Keep) -> TrainedStage:
    """The model after one stage: from nothing (`pretrain`) or from its parent, in fp32 on the CPU. A model that is
    only reparametrised has no history."""
    if settings.stage == "pretrain":
        start = build_model(settings.architecture, tokenizer, settings.seed)
        return train_stage(settings, start, tokenizer, keep, settings.seed)
    start = load_model(parent, "cpu", "float32").requires_grad_(True)
    if settings.stage == "reparametrise":
        rotation = random_rotation(parent.hidden, settings.seed) if settings.rotate else None
        return TrainedStage(reparametrised(start, rotation, settings.scale), [], list(parent.unseen_ids))
    if settings.stage == "reinforce":
        return reinforce(settings, start, tokenizer, keep, settings.seed)
    return train_stage(settings, start, tokenizer, keep, settings.seed)


def save_model_folder(
    model_json: Path, name: str, trained: TrainedStage, tokenizer: Any, card: Mapping[str, Any]
) -> None:
    """Writes weights, config and tokenizer into the folder of `model_json`, each whole; model.json comes last."""
    folder = model_json.parent
    with filling(folder) as temporary:
        trained.model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    info = describe_model(name, folder, unseen_ids=trained.unseen_ids)
    write_json(model_json, {**info_to_json(info), "folder": "."}, card)
