"""Several processes train what one would, whatever becomes of one of them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from teamwork import BANK, POINTS, train_models, train_planted

from reasondiff.dictionaries.planning import Size, group_bytes, plan, plan_passes, share_out
from reasondiff.dictionaries.workers import WorkerError, run_together
from reasondiff.job import Preempted
from reasondiff.models.load import info_to_json
from reasondiff.store import read_card, write_json
from reasondiff.text.tokens import save_tokens

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-6  # of weights around 0.1; none was off at all on the machine this was written on


@pytest.fixture(autouse=True)
def found_by_processes(monkeypatch):
    """`teamwork` can be imported by the processes of a team."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[1] / "scripts")]))


@pytest.fixture
def log(tmp_path):
    """The file that everything logged goes to."""
    handler, logger = logging.FileHandler(tmp_path / "job.log"), logging.getLogger()
    logger.addHandler(handler)
    logger.handlers.insert(0, logger.handlers.pop())
    yield tmp_path / "job.log"
    logger.removeHandler(handler)
    handler.close()


def results(folder: Path) -> dict[str, Path]:
    """Every file of a dictionary by its place."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.glob("*/**/*.*")) if path.is_file()}


def assert_same(folder: Path, expected: Path) -> None:
    """The same files, cards and histories, and the same weights within TOLERANCE."""
    found, wanted = results(folder), results(expected)
    assert found.keys() == wanted.keys() and wanted
    for name, path in wanted.items():
        if path.suffix == ".safetensors":
            assert read_card(found[name]) == read_card(path)
            tensors = load_file(found[name])
            for key, tensor in load_file(path).items():
                assert torch.allclose(tensors[key], tensor, rtol=0, atol=TOLERANCE), (name, key)
        else:
            assert found[name].read_text() == path.read_text()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The planted bank as one process trains it."""
    folder = tmp_path_factory.mktemp("alone")
    train_planted(str(folder))
    return folder


# ------------------------------------------------------------------------------------------------ shares


def sizes(count: int = 12) -> list[Size]:
    return [Size(layer, f"p{point}", 1000 + point, 10, 5, 700) for layer in range(3) for point in range(count // 3)]


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 12, 20])
def test_every_dictionary_is_trained_by_one_process_and_none_takes_more_than_it_must(processes):
    shares = share_out(sizes(), processes)
    assert len(shares) == processes
    assert [size for share in shares for size in share] == sizes()  # neighbours stay together
    most = max(map(group_bytes, shares))
    assert processes >= 12 or len(plan(sizes(), most - 1)) > processes


def test_two_processes_need_half_the_passes():
    room = 2.5 * group_bytes(sizes()[:1])  # two dictionaries fit together
    one, two = (plan_passes(sizes(), room, processes) for processes in (1, 2))
    assert (len(one), len(two)) == (6, 3)
    assert all(group_bytes(share) <= room for shares in two for share in shares)


# ------------------------------------------------------------------------------------------------ one result


def test_two_processes_write_the_files_that_one_writes(tmp_path, small_models, numbers_table):
    tokens, alignment = tmp_path / "tokens.npz", tmp_path / "alignment.json"
    save_tokens(tokens, numbers_table, {})
    write_json(alignment, {"ids_digest": numbers_table.ids_digest(), "foreign_ids": []})
    models = [tmp_path / f"{name}.json" for name in ("qwen2", "other")]
    for path in models:
        write_json(path, info_to_json(small_models[path.stem]))
    stream = {"batch_rows": 1, "first_positions": 2, "norm_factor": 10.0, "calibration_tokens": 500, "compile": False}
    reading = {"stream": stream, "context": 200, "device": "cpu", "dtype": "float32"}
    small = BANK.model_copy(update={"tokens": 4000, "latents": 40})
    tracking = {"kind": "none", "project": "p", "mode": "offline"}
    schedule = small.model_dump(
        include={
            "tokens", "batch_tokens", "buffer_tokens", "warmup_share", "decay_share", "gradient_clip",
            "checkpoint_minutes",
        }
    )  # fmt: skip
    recipe = {"auxiliary_weight": 0.03125, "stale_after_tokens": 1000, "selection": "float32"}
    shared = {"tokens": str(tokens), "alignment": str(alignment), "reading": reading, "seed": 0, "code": "code"}

    def arguments(folder: Path) -> dict:
        return {
            "crosscoders": {
                **shared, "models": list(map(str, models)), "bank": small.model_dump(mode="json"), "pair": "pair",
                "tracking": tracking, "folder": str(folder / "c"), "points": list(POINTS), "threshold_tokens": 300,
                "checkpoint": str(folder / "c.safetensors"), "memory_gib": None,
            },
            "transcoders": {
                **shared, "model": str(models[0]), "starts": [], "layers": [0, 2], "schedule": schedule,
                "points": {"x4k5": {"expansion": 4, "k": 5, "learning_rate": 5e-3}},
                "training": {"trainer": "reasondiff", "recipe": recipe, "memory_gib": None, "tracking": tracking},
                "folder": str(folder / "t"), "checkpoint": str(folder / "t.safetensors"),
            },
        }  # fmt: skip

    one, two = tmp_path / "one", tmp_path / "two"
    train_models(**arguments(one))
    run_together(train_models, 2, "cpu", arguments(two))
    assert_same(two, one)
    assert [path.name for path in two.iterdir() if path.is_file()] == []  # no checkpoint is left


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_killed_process_ends_the_others_and_the_next_run_goes_on(tmp_path, alone):
    with pytest.raises(WorkerError, match=r"process 1 of 2 failed .*SIGKILL"):
        run_together(train_planted, 2, "cpu", {"folder": str(tmp_path), "event": "kill"})
    assert not any(is_running(int((tmp_path / f"pid{rank}").read_text())) for rank in range(2))
    assert sorted(path.name for path in tmp_path.glob("checkpoint*"))[1:] == ["checkpoint.safetensors"]
    assert results(tmp_path) == {}
    run_together(train_planted, 2, "cpu", {"folder": str(tmp_path)})
    assert_same(tmp_path, alone)
    read = [int((tmp_path / f"read{rank}").read_text()) for rank in range(2)]
    whole = int((alone / "read0").read_text())
    assert all(count < whole / 2 for count in read)  # a half each, less what had been read before
    assert list(tmp_path.glob("checkpoint*")) == []


def test_an_error_in_one_process_is_told_and_ends_the_others(tmp_path, log):
    with pytest.raises(WorkerError, match=r"process 0 of 2 failed .*ValueError: the planted error"):
        run_together(train_planted, 2, "cpu", {"folder": str(tmp_path), "event": "error", "rank": 0})
    said = log.read_text()
    assert "[process 0]: failed" in said and "ValueError: the planted error" in said
    assert "[process 1]: another process is gone" in said
    assert not any(is_running(int((tmp_path / f"pid{rank}").read_text())) for rank in range(2))


def test_sigterm_saves_what_all_have_and_one_process_goes_on_from_it(tmp_path, alone):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Preempted):
            run_together(train_planted, 2, "cpu", {"folder": str(tmp_path), "event": "preempt"})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "checkpoint.safetensors").exists()
    train_planted(str(tmp_path))
    assert_same(tmp_path, alone)
    assert int((tmp_path / "read0").read_text()) < int((alone / "read0").read_text())
    assert list(tmp_path.glob("checkpoint*")) == []


ORPHANED = """
import json, sys
from teamwork import train_planted
from reasondiff.dictionaries.workers import run_together
run_together(train_planted, 2, "cpu", {"folder": sys.argv[1], "at": 10**9})
"""


def test_the_processes_of_a_killed_job_end_by_themselves(tmp_path):
    job = subprocess.Popen([sys.executable, "-c", ORPHANED, str(tmp_path)], stderr=subprocess.DEVNULL)
    paths = [tmp_path / f"pid{rank}" for rank in range(2)]
    while not all(path.exists() and path.read_text() for path in paths):
        assert job.poll() is None
        time.sleep(0.02)
    job.kill()
    job.wait()
    deadline = time.monotonic() + 30
    while any(is_running(int(path.read_text())) for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.1)
