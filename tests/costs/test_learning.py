"""Dictionaries take what the trainings and the files say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from published import changed

from reasondiff.config import Bank, TranscoderPoint
from reasondiff.costs.learning import (
    checkpoint_bytes,
    crosscoders,
    encoder_flops,
    learn,
    planned,
    skip_flops,
    sparse_flops,
    transcoder,
)
from reasondiff.dictionaries import sweep, transcoding
from reasondiff.dictionaries.crosscoder import fold, save_crosscoder
from reasondiff.dictionaries.planning import group_bytes
from reasondiff.dictionaries.tasks import _size
from reasondiff.dictionaries.transcoder import Transcoder, TranscoderFolders, save_transcoder
from reasondiff.models.stream import ActivationStream

WIDTH = 12
STUDY = changed("smoke", {})
POINT = TranscoderPoint(expansion=3, k=4, learning_rate=1e-3)


def stream(place: str, models: int) -> ActivationStream:
    """Nothing but what a plan asks of a stream."""
    found = object.__new__(ActivationStream)
    found.width, found.place, found.device = WIDTH, place, "cpu"
    found.models = [SimpleNamespace(dtype=torch.bfloat16)] * models
    return found


PAIR, MLPS = stream("block", 2), stream("mlp", 1)


def bank(**changes) -> Bank:
    return STUDY.banks["main"].model_copy(update=changes)


def of_bank(settings: Bank, seed: int = 0):
    return crosscoders(settings, seed, WIDTH, 2, STUDY.cost)


def data_bytes(path) -> int:
    """Of a safetensors file, what stands after its header."""
    with open(path, "rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


# ------------------------------------------------------------------------------------------------ files and plans


def test_a_crosscoders_file_has_the_bytes_that_are_reckoned(tmp_path):
    for one in of_bank(bank(latents=40)):
        numbers = WIDTH * one.sides
        weights = (torch.zeros(40, numbers), torch.zeros(40), torch.ones(40, numbers), torch.zeros(numbers))
        k = int(one.k) if one.is_thresholded else None
        save_crosscoder(tmp_path / "one.safetensors", fold(*weights, torch.ones(one.sides), 0.0, k, {}))
        assert data_bytes(tmp_path / "one.safetensors") == one.file_bytes, one.name


def test_a_transcoders_file_has_the_bytes_that_are_reckoned(tmp_path):
    one = transcoder(1, "p", POINT, WIDTH, STUDY.cost, "float32", 0.03)
    tensors = torch.zeros(36, 12), torch.zeros(36), torch.zeros(36, 12), torch.zeros(12), torch.zeros(12, 12)
    save_transcoder(tmp_path, Transcoder(*tensors, 4, {}))
    assert data_bytes(tmp_path / "sae.safetensors") == one.file_bytes


def test_the_memory_of_a_bank_is_what_its_training_will_plan():
    settings = bank(latents=40)
    outputs = sweep.Outputs("nowhere", [1], list(settings.points_of(0)), 0)
    tasks = [sweep._task(PAIR, settings, outputs, 1, name, "") for name in settings.points_of(0)]
    expected = [_size(task, settings, PAIR) for task in tasks]
    assert [planned(one, settings, 2, 2) for one in of_bank(settings)] == expected
    assert group_bytes([planned(one, settings, 2, 2) for one in of_bank(settings)]) == group_bytes(expected)


def test_the_memory_of_transcoders_is_what_their_training_will_plan():
    schedule = STUDY.transcoders.training
    ours = [transcoder(layer, "p", POINT, WIDTH, STUDY.cost, "float32", 0.03) for layer in (0, 3)]
    task = [
        transcoding._task(WIDTH, POINT, TranscoderFolders("x", 0), (layer, "p"), {"fingerprint": ""})
        for layer in (0, 3)
    ]
    assert [planned(one, schedule, 2, 2) for one in ours] == [_size(one, schedule, MLPS) for one in task]


def test_a_checkpoint_holds_weights_two_moments_and_each_layers_buffer():
    settings = bank(latents=40, buffer_tokens=1000)
    some = of_bank(settings)
    sizes = [planned(one, settings, 2, 2) for one in some]
    assert checkpoint_bytes(some, sizes) == 12 * sum(one.weights for one in some) + 1000 * 2 * WIDTH * 2


# ------------------------------------------------------------------------------------------------ work


def test_products_of_a_step_by_hand():
    assert encoder_flops(24, 40) == 2 * 24 * 40
    assert sparse_flops(24, 8) == 4 * 2 * 8 * 24  # decode, and the gradients of values, decoder and encoder
    assert skip_flops(12) == 4 * 144


def test_a_dictionary_of_one_model_reads_half_of_a_pair():
    found = {one.name: one for one in of_bank(bank())}
    assert found["alone1"].reads == (1,) and found["btk8"].reads == (0, 1)
    assert 2 * found["alone0"].weights == found["btk8"].weights


def test_learning_grows_with_tokens_latents_and_what_fires():
    (one,) = [found for found in of_bank(bank()) if found.name == "btk8"]
    work, schedule = learn(one, bank()), bank()
    longer = schedule.model_copy(update={"tokens": 2 * schedule.tokens})
    for kind in ("tf32_flops", "float32_flops"):
        assert getattr(learn(one, longer), kind) == pytest.approx(2 * getattr(work, kind), rel=0.02)  # whole steps
    (wide,) = [found for found in of_bank(bank(latents=2 * bank().latents)) if found.name == "btk8"]
    assert wide.file_bytes == pytest.approx(2 * one.file_bytes, rel=0.01)
    dense = learn(wide, schedule).tf32_flops - work.tf32_flops
    steps = schedule.tokens // schedule.batch_tokens
    assert dense == pytest.approx(steps * schedule.batch_tokens * encoder_flops(one.numbers, one.latents))


def test_half_the_batch_moves_all_weights_twice_as_often():
    (one,) = [found for found in of_bank(bank()) if found.name == "btk8"]
    settings = bank(tokens=512 * 40)
    often = learn(one, settings.model_copy(update={"batch_tokens": 256}))
    seldom = learn(one, settings.model_copy(update={"batch_tokens": 512}))
    assert often.moved_bytes - seldom.moved_bytes == pytest.approx(40 * 48 * one.weights)
    assert often.float32_flops == seldom.float32_flops and often.tf32_flops == seldom.tf32_flops


def test_the_precision_of_the_dense_product_is_that_of_the_selection():
    rough, exact = (
        learn(transcoder(0, "p", POINT, WIDTH, STUDY.cost, dtype, 0.03), STUDY.transcoders.training)
        for dtype in ("bfloat16", "float32")
    )
    assert rough.bfloat16_flops > 0 == exact.bfloat16_flops
    assert rough.bfloat16_flops + rough.tf32_flops == pytest.approx(exact.tf32_flops)
    assert rough.float32_flops == exact.float32_flops > 0
    assert rough.moved_bytes < exact.moved_bytes


def test_latents_that_have_to_be_revived_take_part_in_sums_unless_nothing_revives_them():
    found = {one.name: one for one in of_bank(bank())}
    stale = min(STUDY.cost.stale_latents, WIDTH // 2)
    assert found["btk8"].firing == 8 + stale and found["btk8"].k == 8
    assert found["l1"].firing == STUDY.cost.l1_firing
    assert transcoder(0, "p", POINT, WIDTH, STUDY.cost, "float32", 0.0).firing == 4
