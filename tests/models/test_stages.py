"""A stage of the chain becomes a folder that the framework opens like any other."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from reasondiff.config import Model
from reasondiff.models.chain import TrainedStage
from reasondiff.models.load import load_model, load_tokenizer, read_info
from reasondiff.models.stages import save_model_folder, train_model
from reasondiff.store import read_card
from reasondiff.text.rendering import render_prompt

MIX = {"general": 0.1, "facts": 0.2, "one_step": 0.4, "direct": 0.1, "copying": 0.1, "solutions": 0.1}
GRADIENT = {
    "tokens": 2000, "batch_tokens": 512, "optimizer": "adam", "learning_rate": 1e-3, "learning_rate_matrices": None,
    "weight_decay": 0.0, "warmup_share": 0.1, "decay_share": 0.5, "elicitations": ["direct"],
}  # fmt: skip
ARCHITECTURE = {"hidden": 16, "layers": 2, "mlp": 32, "heads": 2, "kv_heads": 1, "positions": 256}
BASE = {**GRADIENT, "stage": "pretrain", "tokenizer": "tiny", "seed": 1, "architecture": ARCHITECTURE, "mix": MIX}
FINETUNE = {**GRADIENT, "stage": "finetune", "parent": "base", "seed": 2, "one_step_share": 0.5, "format_only": False}
REINFORCE = {
    "stage": "reinforce", "parent": "base", "seed": 3, "method": "grpo", "iterations": 1, "problems_per_iteration": 2,
    "samples_per_problem": 2, "learning_rate": 1e-3, "temperature": 1.0, "length_penalty": 0.0, "batch_tokens": 512,
    "max_new_tokens": 8, "elicitations": ["think"],
}  # fmt: skip


def stage(settings, parent, tokenizer):
    return train_model(
        TypeAdapter(Model).validate_python(settings), parent, tokenizer, lambda problem, family=None: True
    )


@pytest.fixture(scope="module")
def base(small_tokenizer, tmp_path_factory):
    """(what training gave, its model.json)"""
    trained = stage(BASE, None, small_tokenizer)
    path = tmp_path_factory.mktemp("base") / "model.json"
    save_model_folder(path, "base", trained, small_tokenizer, {"settings": BASE})
    return trained, path


def test_a_saved_stage_is_read_back_as_the_model_it_was(base):
    trained, path = base
    info = read_info(path)
    assert (info.name, info.layers, info.hidden, info.vocabulary) == ("base", 2, 16, 420)
    again = load_model(info, "cpu", "float32").state_dict()
    assert all(torch.equal(again[name], value) for name, value in trained.model.state_dict().items())


def test_a_saved_stage_says_how_it_was_made_and_what_it_never_saw(base, small_tokenizer):
    trained, path = base
    assert read_card(path)["settings"]["stage"] == "pretrain"
    assert read_info(path).unseen_ids == tuple(trained.unseen_ids)
    markers = small_tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert set(markers) <= set(trained.unseen_ids)  # a base has ids for the markers and never saw them


def test_a_saved_stage_has_its_tokenizer_with_the_chat_template(base, small_tokenizer):
    tokenizer = load_tokenizer(base[1].parent)
    assert render_prompt(tokenizer, "1 + 1?") == render_prompt(small_tokenizer, "1 + 1?")
    assert tokenizer.get_vocab() == small_tokenizer.get_vocab()


@pytest.mark.parametrize("settings", [FINETUNE, REINFORCE], ids=["finetune", "reinforce"])
def test_a_later_stage_starts_from_its_parents_file_and_leaves_it_as_it_was(base, small_tokenizer, settings):
    _, path = base
    before = read_info(path)
    trained = stage(settings, before, small_tokenizer)
    assert isinstance(trained, TrainedStage)
    parent = load_model(before, "cpu", "float32").state_dict()
    moved = [(trained.model.state_dict()[name] - value).abs().max().item() for name, value in parent.items()]
    assert max(moved) < 0.1  # a few steps from the parent, not from nothing
    if settings is FINETUNE:
        assert max(moved) > 0
        assert set(trained.unseen_ids) < set(before.unseen_ids)


def test_a_failed_save_leaves_no_model_json(small_tokenizer, base, tmp_path):
    class Broken:
        def save_pretrained(self, folder):
            raise RuntimeError("stop")

    broken = TrainedStage(base[0].model, [], [])
    with pytest.raises(RuntimeError, match="stop"):
        save_model_folder(tmp_path / "model.json", "x", broken, Broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_a_reparametrised_stage_says_the_same_in_other_units(base, small_tokenizer, tmp_path):
    parent = read_info(base[1])
    settings = {"stage": "reparametrise", "parent": "base", "seed": 7, "rotate": True, "scale": 3.0, "elicitations": []}
    trained = stage(settings, parent, small_tokenizer)
    assert trained.history == [] and trained.unseen_ids == list(parent.unseen_ids)
    save_model_folder(tmp_path / "model.json", "turned", trained, small_tokenizer, {"settings": settings})
    ids = torch.arange(40).reshape(2, 20)
    own, turned = (load_model(info, "cpu", "float32") for info in (parent, read_info(tmp_path / "model.json")))
    with torch.no_grad():
        own, turned = (model(ids, output_hidden_states=True) for model in (own, turned))
    torch.testing.assert_close(turned.logits, own.logits, rtol=0, atol=1e-4)
    assert turned.hidden_states[1].norm() == pytest.approx(3 * float(own.hidden_states[1].norm()), rel=1e-4)
