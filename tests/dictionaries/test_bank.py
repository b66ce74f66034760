"""Every point of a bank learns the same, whoever trains beside it and however often it is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted import bank, batch_topk, l1
from streams import PlantedStream, made_up_table

from reasondiff.dictionaries import bank as bank_module
from reasondiff.dictionaries.bank import BankTraining, ShuffleBuffer, tensor_cores
from reasondiff.dictionaries.checkpoint import read_checkpoint
from reasondiff.dictionaries.sweep import crosscoder_trainers
from reasondiff.job import Preempted, preemption
from reasondiff.models.load import ModelError
from reasondiff.models.stream import calibrate
from reasondiff.store import ArtefactError

POINTS = {"btk": batch_topk(stale_after_tokens=3000), "l1": l1(), "alone": batch_topk(sides=(1,))}
SETTINGS = bank(tokens=12_000, batch_tokens=200, buffer_tokens=900, points=POINTS, checkpoint_minutes=1e-9)


class Interrupted(Exception):
    pass


def training(todo, stream=None, report=lambda *_: None, settings=SETTINGS) -> BankTraining:
    stream = stream or PlantedStream(layers=sorted(todo))
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 600)
    make = crosscoder_trainers(settings, "pair", 0, stream)
    return BankTraining(settings, 0, todo, stream, statistics, make, report, report_every=10)


def weights(done: BankTraining) -> dict:
    return {
        (layer, name): torch.cat([parameter.detach().flatten() for parameter in trainer.parameters()])
        for layer, site in done.sites.items()
        for name, trainer in site.trainers.items()
    }


def run(todo, **changes) -> BankTraining:
    whole = training(todo, **changes)
    whole.run(whole.stream.table.documents_of("train"))
    return whole


@pytest.fixture(scope="module")
def uninterrupted() -> BankTraining:
    return run({1: list(POINTS), 2: ["btk"]})


# ------------------------------------------------------------------------------------------------ the buffer


def test_the_buffer_hands_out_every_row_once_in_another_order():
    buffer = ShuffleBuffer(100, 1, 1, torch.float32, "cpu", seed=0)
    rows = torch.arange(1030.0).view(-1, 1, 1)
    batches = [batch for part in rows.split(37) for batch in buffer.add(part, 30)]
    assert all(len(batch) == 30 for batch in batches)
    seen = torch.cat(batches).flatten()
    left = buffer.rows[: buffer.filled].flatten()
    assert torch.equal(torch.cat([seen, left]).sort().values, rows.flatten())
    assert not torch.equal(seen, seen.sort().values)
    assert (seen[:30] < 100).all() and seen[:30].std() > 20  # the first batch is from all of the first hundred


def test_a_restored_buffer_goes_on_as_it_would_have():
    def feed(buffer, start, end):
        rows = torch.arange(float(start), float(end)).view(-1, 1, 1)
        return [batch for part in rows.split(9) for batch in buffer.add(part.expand(-1, 2, 3), 20)]

    whole = ShuffleBuffer(50, 2, 3, torch.float32, "cpu", seed=4)
    feed(whole, 0, 130)
    state = whole.state()
    restored = ShuffleBuffer(50, 2, 3, torch.float32, "cpu", seed=4)
    restored.load_state(state)
    one, two = feed(whole, 130, 400), feed(restored, 130, 400)
    assert len(one) > 5 and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# ------------------------------------------------------------------------------------------------ independence


@pytest.mark.parametrize("todo", [{1: ["btk"]}, {1: ["l1", "btk"]}, {2: ["btk"]}, {1: ["alone"]}])
def test_the_weights_of_a_point_do_not_depend_on_what_shares_its_bank(todo, uninterrupted):
    alone, together = weights(run(todo)), weights(uninterrupted)
    assert all(torch.equal(found, together[key]) for key, found in alone.items())


def test_points_layers_and_seeds_start_differently(uninterrupted):
    found = weights(uninterrupted)
    assert not torch.equal(found[1, "btk"], found[2, "btk"])
    stream, statistics = uninterrupted.stream, {1: uninterrupted.sites[1].statistics}
    make = crosscoder_trainers(SETTINGS, "pair", 1, stream)
    other = BankTraining(SETTINGS, 1, {1: ["btk"]}, stream, statistics, make, lambda *_: None)
    assert not torch.equal(weights(other)[1, "btk"], weights(training({1: ["btk"]}))[1, "btk"])


def test_every_point_makes_all_its_steps_on_whole_batches(uninterrupted):
    for site in uninterrupted.sites.values():
        assert {trainer.steps for trainer in site.trainers.values()} == {60}
        assert site.tokens_seen == 12_000
        for rows in site.history.values():
            assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
            assert rows[-1]["tokens"] == 12_000


def test_masked_tokens_are_never_trained_on():
    """Foreign ids and the first two positions are marked by a huge activation, which no batch may hold."""
    stream = PlantedStream(foreign=range(25))
    block = next(iter(stream(stream.table.documents_of("train"))))
    masked = ~torch.from_numpy(stream.table.ids >= 25)
    stream.activations[1][masked] *= 1e6
    assert not block.kept.all()
    done = run({1: ["btk"]}, stream=stream)
    assert done.sites[1].history["btk"][-1]["loss"] < 1e3


@pytest.mark.parametrize(("device", "expected"), [("cpu", "highest"), ("cuda", "high")])
def test_only_the_steps_on_a_card_use_its_tensor_cores(device, expected, monkeypatch):
    seen = set()
    whole = training({1: ["btk"]})
    trainer = whole.sites[1].trainers["btk"]
    step, read = trainer.step, whole.stream.read

    def noted(x, measured):
        seen.add(("step", torch.get_float32_matmul_precision()))
        return step(x, measured)

    def noted_too(rows):
        seen.add(("read", torch.get_float32_matmul_precision()))
        return read(rows)

    monkeypatch.setattr(trainer, "step", noted)
    monkeypatch.setattr(whole.stream, "read", noted_too)
    monkeypatch.setattr(bank_module, "tensor_cores", lambda _device: tensor_cores(device))
    whole.run(whole.stream.table.documents_of("train"))
    assert seen == {("step", expected), ("read", "highest")}
    assert torch.get_float32_matmul_precision() == "highest"


# ------------------------------------------------------------------------------------------------ interruptions


def interrupt_at(step: int):
    def report(_layer, _name, at, _metrics):
        if at == step:
            raise Interrupted

    return report


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, uninterrupted):
    todo, checkpoint = {1: list(POINTS), 2: ["btk"]}, tmp_path / "checkpoint.safetensors"
    for step in (20, 50):  # interrupted twice
        broken = training(todo, report=interrupt_at(step))
        with pytest.raises(Interrupted):
            broken.run(broken.stream.table.documents_of("train"), checkpoint, "print")
    resumed = training(todo)
    read_before = resumed.stream.blocks_made
    resumed.run(resumed.stream.table.documents_of("train"), checkpoint, "print")
    found, expected = weights(resumed), weights(uninterrupted)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    # the models did not read the first blocks again
    assert resumed.stream.blocks_made - read_before < uninterrupted.blocks_read / 2
    for layer, site in resumed.sites.items():  # the figures from before the interruption are not lost
        assert site.history == uninterrupted.sites[layer].history
        assert site.tokens_seen == uninterrupted.sites[layer].tokens_seen


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
import torch
torch.set_num_threads(1)
from test_bank import training
def report(layer, name, step, metrics):
    if step == 40:
        os.kill(os.getpid(), signal.SIGKILL)
broken = training({1: ["btk"]}, report=report)
from pathlib import Path
broken.run(broken.stream.table.documents_of("train"), Path(sys.argv[3]), "print")
"""


def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(tmp_path, uninterrupted):
    here = Path(__file__).resolve().parent
    checkpoint = tmp_path / "checkpoint.safetensors"
    command = [sys.executable, "-c", KILLED, str(here), str(here.parents[1] / "scripts"), str(checkpoint)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    assert 0 < read_checkpoint(checkpoint)["sites"][1]["trainers"]["btk"]["steps"] < 60
    resumed = training({1: ["btk"]})
    resumed.run(resumed.stream.table.documents_of("train"), checkpoint, "print")
    assert torch.equal(weights(resumed)[1, "btk"], weights(uninterrupted)[1, "btk"])


def test_a_preempted_training_saves_the_moment_and_goes_on_from_it(tmp_path, uninterrupted, monkeypatch):
    """Its own checkpoints would come every ten minutes. The signal comes in the middle of a step."""
    rare, checkpoint = bank(**{**SETTINGS.model_dump(), "checkpoint_minutes": 10}), tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(preemption, "came", False)
    broken = training({1: ["btk"]}, settings=rare, report=lambda *_: preemption.notice())
    with pytest.raises(Preempted):
        broken.run(broken.stream.table.documents_of("train"), checkpoint, "print")
    assert read_checkpoint(checkpoint)["blocks_read"] == broken.blocks_read < uninterrupted.blocks_read
    monkeypatch.setattr(preemption, "came", False)
    resumed = training({1: ["btk"]}, settings=rare)
    resumed.run(resumed.stream.table.documents_of("train"), checkpoint, "print")
    assert torch.equal(weights(resumed)[1, "btk"], weights(uninterrupted)[1, "btk"])


def test_a_checkpoint_of_other_settings_is_ignored(tmp_path, uninterrupted):
    checkpoint = tmp_path / "checkpoint.safetensors"
    broken = training({1: ["btk"]}, report=interrupt_at(40))
    with pytest.raises(Interrupted):
        broken.run(broken.stream.table.documents_of("train"), checkpoint, "of other settings")
    anew = training({1: ["btk"]})
    anew.run(anew.stream.table.documents_of("train"), checkpoint, "print")
    assert anew.blocks_read == uninterrupted.blocks_read
    assert torch.equal(weights(anew)[1, "btk"], weights(uninterrupted)[1, "btk"])


def test_a_broken_checkpoint_is_named(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(b"half a file")
    with pytest.raises(ArtefactError, match="checkpoint.safetensors"):
        training({1: ["btk"]}).run(made_up_table().documents_of("train"), checkpoint, "print")


# ------------------------------------------------------------------------------------------------ bad text


def test_a_text_without_training_documents_is_refused():
    with pytest.raises(ModelError, match="empty"):
        training({1: ["btk"]}).run(made_up_table().documents_of("family"))


def test_a_text_whose_training_tokens_are_all_masked_is_refused():
    whole = training({1: ["btk"]})
    whole.stream.settings = whole.stream.settings.model_copy(update={"first_positions": 100})
    with pytest.raises(ModelError, match="masked"):
        whole.run(whole.stream.table.documents_of("train"))
