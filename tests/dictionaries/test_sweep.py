"""Only what has to be trained is trained, and what is finished stays as it is."""

from __future__ import annotations

import json

import pytest
import torch
from planted import bank, batch_topk, l1
from streams import PlantedStream, made_up_table

from reasondiff.config import Tracking
from reasondiff.dictionaries.code import active
from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.dictionaries.sweep import Outputs, train_bank
from reasondiff.models.stream import unmasked
from reasondiff.store import read_card, read_json_lines

POINTS = {"btk": batch_topk(), "l1": l1(), "alone": batch_topk(sides=(1,))}
NOTHING = Tracking(kind="none", project="p", mode="offline")
LAYERS = [1, 2]


def settings(**changes):
    return bank(tokens=3000, batch_tokens=200, buffer_tokens=900, layers=(1, 2), **{"points": POINTS, **changes})


def train(folder, chosen=None, stream=None, code="code", threshold_tokens=200, seed=0):
    chosen = chosen or settings()
    outputs = Outputs(str(folder), LAYERS, list(chosen.points), seed)
    stream = stream or PlantedStream(layers=LAYERS)
    checkpoint = str(folder / "checkpoint.safetensors")
    train_bank(chosen, "pair", outputs, lambda: stream, threshold_tokens, NOTHING, code, checkpoint, None)
    return outputs


def written(outputs) -> dict:
    """When each weights file was written."""
    return {(layer, name): outputs.path(layer, name).stat().st_mtime_ns for layer in LAYERS for name in outputs.points}


def retrained(before: dict, after: dict) -> set:
    return {key for key, time in after.items() if before.get(key) != time}


@pytest.fixture
def trained_once(tmp_path):
    outputs = train(tmp_path)
    return outputs, written(outputs)


def test_finished_points_are_kept(tmp_path, trained_once):
    outputs, before = trained_once
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert retrained(before, written(train(tmp_path))) == set()


def test_a_changed_point_alone_is_trained_again(tmp_path, trained_once):
    outputs, before = trained_once
    unchanged = load_crosscoder(outputs.path(1, "btk")).encoder
    changed = settings(points={**POINTS, "l1": l1(sparsity=0.9)})
    assert retrained(before, written(train(tmp_path, changed))) == {(1, "l1"), (2, "l1")}
    assert torch.equal(load_crosscoder(outputs.path(1, "btk")).encoder, unchanged)


def test_a_new_point_alone_is_trained(tmp_path, trained_once):
    _, before = trained_once
    more = settings(points={**POINTS, "btk5": batch_topk(k=5)})
    assert retrained(before, written(train(tmp_path, more))) == {(1, "btk5"), (2, "btk5")}


def test_asking_for_another_seed_trains_no_finished_one_again(tmp_path, trained_once):
    _, before = trained_once
    more = settings(points={name: point.model_copy(update={"seeds": (0, 1)}) for name, point in POINTS.items()})
    assert retrained(before, written(train(tmp_path, more))) == set()


@pytest.mark.parametrize("lost", ["config.json", "training.jsonl", "crosscoder.safetensors"])
def test_a_point_that_lost_a_file_is_trained_again_to_the_same_bits(tmp_path, trained_once, lost):
    outputs, before = trained_once
    bits = outputs.path(1, "btk").read_bytes()
    outputs.path(1, "btk", lost).unlink()
    assert retrained(before, written(train(tmp_path))) == {(1, "btk")}
    assert outputs.path(1, "btk").read_bytes() == bits
    assert all(outputs.path(1, "btk", name).exists() for name in ("config.json", "training.jsonl"))


def test_a_truncated_file_is_trained_again(tmp_path, trained_once):
    outputs, before = trained_once
    path = outputs.path(2, "l1")
    path.write_bytes(path.read_bytes()[:-10])
    before[2, "l1"] = path.stat().st_mtime_ns
    assert retrained(before, written(train(tmp_path))) == {(2, "l1")}


@pytest.mark.parametrize("what", ["code", "ids", "parts", "bank"])
def test_other_code_text_or_settings_train_everything_again(tmp_path, trained_once, what):
    _, before = trained_once
    table = made_up_table()
    if what == "ids":
        table.ids[0] += 1
    elif what == "parts":  # the same documents, but other ones are for training
        table.part[:] = (table.part + 1) % 5
    changes = {
        "code": {"code": "other"},
        "ids": {"stream": PlantedStream(LAYERS, table)},
        "parts": {"stream": PlantedStream(LAYERS, table)},
        "bank": {"chosen": settings(gradient_clip=0.5)},
    }[what]
    assert retrained(before, written(train(tmp_path, **changes))) == set(before)


def test_other_threshold_tokens_concern_batch_topk_alone(tmp_path, trained_once):
    _, before = trained_once
    assert {name for _, name in retrained(before, written(train(tmp_path, threshold_tokens=100)))} == {"btk", "alone"}


def test_at_the_threshold_mean_l0_is_k_on_the_calibration_part(trained_once):
    outputs, _ = trained_once
    stream = PlantedStream(layers=LAYERS)
    for name, sides in (("btk", [0, 1]), ("alone", [1])):
        crosscoder = load_crosscoder(outputs.path(1, name))
        statistics_card = crosscoder.card["site"]
        rows = []
        for block in stream(stream.table.documents_of("calibrate")):
            sinks = (block.activations[1].norm(dim=2) > 10 * torch.tensor(statistics_card["median_norm"])).any(1)
            rows.append(block.activations[1][block.kept & ~sinks])
        x = torch.cat(rows)[:200]
        assert active(crosscoder.activations(x[:, sides]), crosscoder.threshold).l0() == pytest.approx(3, abs=0.01)
        assert crosscoder.sides == sides
    assert load_crosscoder(outputs.path(1, "l1")).threshold == 0.0


def test_the_scale_of_a_site_is_folded_in_on_the_right_side(trained_once):
    """The last model's raw activations are three times the first's."""
    outputs, _ = trained_once
    both, alone = (load_crosscoder(outputs.path(1, name)) for name in ("btk", "alone"))
    assert both.scale[0] / both.scale[1] == pytest.approx(3, rel=0.05)
    assert float(alone.scale) == float(both.scale[1])


def test_a_point_says_how_it_was_made(trained_once):
    outputs, _ = trained_once
    card = read_card(outputs.path(2, "btk"))
    assert (card["pair"], card["layer"], card["name"], card["seed"]) == ("pair", 2, "btk", 0)
    assert card["point"]["k"] == 3 and card["tokens_seen"] == 3000 and card["steps"] == 15
    assert card["training_threshold"] > 0 and card["site"]["calibration_tokens"] > 0
    assert json.loads(outputs.path(2, "btk", "config.json").read_text())["k"] == 3
    rows = read_json_lines(outputs.path(2, "btk", "training.jsonl"))
    assert rows[-1]["step"] == 15 and {"loss", "fve", "l0", "stale"} <= set(rows[-1])


def test_unmasked_tokens_alone_calibrate_a_threshold():
    """`unmasked` is what both the training and the threshold use; a first position is in neither."""
    from reasondiff.models.stream import calibrate

    stream = PlantedStream()
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 600)[1]
    block = next(iter(stream(stream.table.documents_of("calibrate"))))
    kept, _ = unmasked(block, 1, statistics, stream.settings)
    assert not kept[block.position < 2].any() and kept[block.position >= 2].float().mean() > 0.9
