"""Dictionaries are split into groups that fit the memory, by an estimate that holds what a training really holds."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlps import WIDTH, PlantedMlps, schedule, statistics_of, transcoder_point
from planted import LATENTS, bank, batch_topk
from planted import WIDTH as WIDTH_OF_PAIRS
from torch.profiler import ProfilerActivity, profile

from reasondiff.dictionaries import planning
from reasondiff.dictionaries.bank import BankTraining, ShuffleBuffer
from reasondiff.dictionaries.planning import (
    GIB,
    PlanError,
    Size,
    announce,
    available_bytes,
    group_bytes,
    plan,
    plan_passes,
)
from reasondiff.dictionaries.tasks import Task, _size
from reasondiff.dictionaries.trainer import Trainer
from reasondiff.dictionaries.transcoder import TranscoderFolders
from reasondiff.dictionaries.transcoder_trainer import Recipe, TranscoderTrainer
from reasondiff.dictionaries.transcoding import _task, best_maps, trainers
from reasondiff.models.stream import calibrate

RECIPE = Recipe(auxiliary_weight=1 / 32, stale_after_tokens=200, selection="float32")


def size(layer=0, name="point", weights=1000, latents=10, batch_tokens=5, buffer_bytes=700) -> Size:
    return Size(layer, name, weights, latents, batch_tokens, buffer_bytes)


# ------------------------------------------------------------------------------------------------ bytes


def test_the_bytes_of_one_dictionary_by_hand():
    """16 a weight and 8 a latent kept, 8 for each of 5 x 10 responses at work, 700 of buffer."""
    one = size()
    assert one.kept_bytes() == 16_080 and one.working_bytes() == 600
    assert group_bytes([one]) == 16_080 + 600 + 700


def test_a_layer_has_one_buffer_and_a_group_one_working_memory():
    here = [size(name="a"), size(name="b", latents=20, weights=0)]
    # kept 16,080 + 160; at work the larger, 8 x 5 x 20; the buffer once
    assert group_bytes(here) == 16_240 + 1200 + 700
    there = replace(here[1], layer=1)
    assert group_bytes([here[0], there]) == 16_240 + 1200 + 1400
    assert group_bytes([]) == 0


# ------------------------------------------------------------------------------------------------ groups


def random_sizes(seed: int) -> list[Size]:
    """Points at layers in no order, of the most different sizes."""
    draw = np.random.default_rng(seed)
    keys = draw.permutation([(layer, point) for layer in range(5) for point in range(4)])
    numbers = lambda: (int(x) for x in draw.integers(1, 3000, 2))  # noqa: E731
    return [size(int(layer), f"p{point}", *numbers(), 5, int(700 + layer)) for layer, point in keys]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("room", [1.0, 1.5, 3.0, 10.0])
def test_groups_hold_everything_once_in_order_of_layer_and_each_fits(seed, room):
    sizes = random_sizes(seed)
    available = room * max(group_bytes([one]) for one in sizes)
    groups = plan(sizes, available)
    together = [one for group in groups for one in group]
    assert sorted(together, key=repr) == sorted(sizes, key=repr)
    assert [one.layer for one in together] == sorted(one.layer for one in sizes)
    for layer in range(5):  # within a layer in the order given
        assert [one for one in together if one.layer == layer] == [one for one in sizes if one.layer == layer]
    assert all(group and group_bytes(group) <= available for group in groups)
    # no group ends early: the first of the next would not have fitted
    for group, following in zip(groups, groups[1:], strict=False):
        assert group_bytes([*group, following[0]]) > available


def test_with_room_for_all_there_is_one_group_and_for_nothing_none():
    sizes = random_sizes(0)
    assert len(plan(sizes, float("inf"))) == 1 and len(plan(sizes, group_bytes(sizes))) == 1
    assert len(plan(sizes, group_bytes(sizes) - 1)) == 2
    assert plan([], 100) == []


def test_one_that_does_not_fit_alone_is_an_error_with_both_numbers_and_what_would_do():
    sizes = [size(name="small", weights=10), size(layer=7, name="x16k32", weights=GIB)]
    with pytest.raises(PlanError) as caught:
        plan(sizes, 2.5 * GIB)
    said = str(caught.value)
    assert said.startswith("layer 7, 'x16k32' alone takes 16 GiB, and 2.5 GiB may be taken")
    assert all(setting in said for setting in ("latents", "`buffer_tokens`", "`batch_tokens`", "`memory_gib`"))


def test_the_log_names_groups_gib_and_passes(caplog):
    sizes = [size(layer=layer, weights=GIB // 32, buffer_bytes=0) for layer in (0, 3, 5)]  # 0.5 GiB each
    with caplog.at_level(logging.INFO):
        announce(plan_passes(sizes, 1.2 * GIB, 1), 1.2 * GIB, tokens=200_000_000)
    assert [record.getMessage() for record in caplog.records] == [
        "3 dictionaries in 2 group(s) of one pass over 200,000,000 tokens each; 1.2 GiB may be taken",
        "group 1: 2 dictionaries of layer(s) 0, 3, 1 GiB",
        "group 2: 1 dictionaries of layer(s) 5, 0.5 GiB",
    ]


# ------------------------------------------------------------------------------------------------ what is free


def test_what_may_be_taken_is_what_is_said_or_most_of_what_is_free(monkeypatch):
    assert available_bytes("cpu", 3) == available_bytes("cuda:0", 3) == 3 * GIB
    monkeypatch.setattr(planning, "_free_host_bytes", lambda: 1000)
    assert available_bytes("cpu", None) == pytest.approx(900)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2000, 5000))
    assert available_bytes("cuda:0", None) == pytest.approx(1800)


def test_processes_share_the_memory_of_a_machine_but_not_that_of_a_card(monkeypatch):
    monkeypatch.setattr(planning, "_free_host_bytes", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2000, 5000))
    assert available_bytes("cpu", 3, 2) == 1.5 * GIB and available_bytes("cuda", 3, 2) == 3 * GIB
    assert available_bytes("cpu", None, 2) == pytest.approx(450)
    assert available_bytes("cuda", None, 2) == pytest.approx(1800)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="no /proc/meminfo on this system")
def test_the_free_memory_of_this_machine_is_less_than_all_of_it():
    total_kb = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    assert 0 < available_bytes("cpu", None) < total_kb * 1024


# ------------------------------------------------------------------------------------------------ the estimate


def held_bytes(trainer) -> int:
    """Weights, gradients, the optimiser's state and counters, summed tensor by tensor."""
    state = [x for values in trainer.optimizer.state.values() for x in values.values()]
    tensors = [*trainer.parameters(), *(p.grad for p in trainer.parameters()), *state, trainer.idle_tokens]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def estimate(point, stream, settings) -> Size:
    """What the plan takes one transcoder for."""
    task = _task(stream.width, point, TranscoderFolders("nowhere", 0), (1, "point"), {"fingerprint": ""})
    return _size(task, settings, stream)


@pytest.mark.parametrize("expansion", [1, 4, 16])
def test_the_estimate_of_what_a_transcoder_keeps_is_what_it_keeps(expansion):
    """But for the biases."""
    point, x = transcoder_point(expansion=expansion), PlantedMlps([1]).activations[1]
    trainer = TranscoderTrainer(point, schedule(), RECIPE, statistics_of(x), 0)
    trainer.step(x[:100])
    expected = estimate(point, PlantedMlps([1]), schedule()).kept_bytes()
    biases = 16 * (len(trainer.encoder_bias) + WIDTH) + 4 * 5  # and Adam's five step counts
    assert held_bytes(trainer) == expected + biases and biases < 0.1 * expected


def test_the_estimate_of_what_a_crosscoder_keeps_is_what_it_keeps():
    """But for the biases."""
    trainer = Trainer(batch_topk(), bank(), 2, WIDTH_OF_PAIRS, 10, 0, "cpu")
    trainer.step(torch.randn(100, 2, WIDTH_OF_PAIRS))
    task = Task(1, "point", (), "", 2 * LATENTS * 2 * WIDTH_OF_PAIRS, LATENTS)
    expected = size(weights=task.weights, latents=task.latents).kept_bytes()
    assert 1 <= held_bytes(trainer) / expected < 1.1


def test_the_estimate_of_a_buffer_is_its_bytes():
    stream = PlantedMlps([1])
    buffer = ShuffleBuffer(400, 2, WIDTH, torch.float32, "cpu", 0)
    assert estimate(transcoder_point(), stream, schedule()).buffer_bytes == buffer.rows.nbytes
    stream.models[0].dtype = torch.bfloat16
    half = ShuffleBuffer(400, 2, WIDTH, torch.bfloat16, "cpu", 0)
    assert estimate(transcoder_point(), stream, schedule()).buffer_bytes == half.rows.nbytes == buffer.rows.nbytes / 2


def peak_bytes(work) -> int:
    """Most memory that was taken at once while `work` ran and before it was given back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    changes = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum(changes).max())


@pytest.mark.parametrize(("expansion", "k"), [(4, 3), (4, 12), (16, 8)])
@pytest.mark.parametrize("stale", [False, True])
def test_a_training_takes_between_half_and_twice_of_what_was_estimated(expansion, k, stale):
    """A bank of two layers, buffers and two steps of each transcoder included; with every other latent stale too."""
    point, settings = transcoder_point(expansion=expansion, k=k), schedule(tokens=2000)
    stream = PlantedMlps([1, 2])
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 600)
    make = trainers({"point": point}, settings, RECIPE, "model", 0, {}, best_maps(stream, statistics))
    training = None

    def learn():
        nonlocal training
        training = BankTraining(settings, 0, {1: ["point"], 2: ["point"]}, stream, statistics, make, lambda *_: None)
        for layer, site in training.sites.items():
            trainer = site.trainers["point"]
            for _ in range(3):
                trainer.step(stream.activations[layer][:100])
            if stale:
                trainer.idle_tokens[::2] = 10**6
            trainer.step(stream.activations[layer][:100])

    one = estimate(point, stream, settings)
    expected = group_bytes([one, replace(one, layer=2)])
    assert 0.5 < peak_bytes(learn) / expected < 2
