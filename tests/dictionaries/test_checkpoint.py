"""What a training has reached comes back from the disk to the last bit, or not at all."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from reasondiff.dictionaries.checkpoint import read_checkpoint, write_checkpoint
from reasondiff.store import ArtefactError


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and one.equal(other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(5, 3, generator=generator)
    return {
        "fingerprint": "ab\u2028\"c",
        "sites": {1: {"a": numbers, "half": numbers[:, :1].bfloat16()}, 20: {"empty": torch.empty(0, 2), "none": None}},
        "parameters": [numbers.T, torch.tensor(3.5), torch.arange(7, dtype=torch.uint8), numbers > 0],
        "groups": [{"betas": (0.9, 0.999), "lr": 0.1 + 0.2, "fused": True, "params": [0, 1]}],
        "history": [{"loss": 1e-300, "fve": -math.inf}, {}],
        "idle": torch.tensor([2**62, -1]),
        "wide": numbers.double(),
    }  # fmt: skip


def test_a_state_comes_back_to_the_last_bit_and_with_its_types(tmp_path, state):
    write_checkpoint(tmp_path / "checkpoint.safetensors", state)
    assert same(read_checkpoint(tmp_path / "checkpoint.safetensors"), state)


def test_equal_states_give_equal_bytes_that_safetensors_itself_reads(tmp_path, state):
    for name in ("one", "two"):
        write_checkpoint(tmp_path / f"{name}.safetensors", state)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert any(tensor.equal(state["wide"]) for tensor in load_file(tmp_path / "one.safetensors").values())


def test_every_flipped_bit_and_every_lost_byte_is_noticed(tmp_path, state):
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, state)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ArtefactError, match=r"checkpoint\.safetensors.*Delete it"):
            read_checkpoint(path)
    for length in (0, 3, 9, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtefactError, match="truncated"):
            read_checkpoint(path)


def test_what_went_on_after_reading_leaves_the_file_as_it_is(tmp_path, state):
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, state)
    before = path.read_bytes()
    read_checkpoint(path)["sites"][1]["a"].add_(1)
    assert path.read_bytes() == before


def test_a_state_with_something_else_in_it_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="set"):
        write_checkpoint(tmp_path / "checkpoint.safetensors", {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []
