"""Distances between models are zero where they must be, and as large as they were made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasondiff.models.divergence import _Turn, measure_divergence, upper_layers
from reasondiff.models.load import describe_model, load_model
from reasondiff.models.stream import ActivationStream, calibrate

EVERYTHING = np.arange(18)


@pytest.fixture
def measure(small_models, numbers_table, stream_settings, monkeypatch):
    """`measure("qwen2", "other", change=...)`: the divergence table; `change` alters all activations of a block."""

    def run(*names, change=None, tokens=10_000, suggest=1):
        infos = [small_models[name] for name in names]
        stream = ActivationStream(infos, [0, 1, 2], numbers_table, [], stream_settings(), 200, "cpu", "float32")
        if change is not None:
            read = stream.read

            def altered(rows):
                block = read(rows)
                for layer, x in block.activations.items():
                    change(layer, x)
                return block

            monkeypatch.setattr(stream, "read", altered)
        return measure_divergence(stream, calibrate(stream, EVERYTHING, 10_000), EVERYTHING, tokens, suggest, seed=0)

    return run


def test_a_model_is_at_no_distance_from_itself(measure):
    table = measure("qwen2", "qwen2")
    assert (table["l2"] == 0).all() and (table["relative_l2"] == 0).all()
    assert table["cosine"].tolist() == pytest.approx([1.0] * len(table), abs=1e-9)
    assert (table["l2_low"] == 0).all() and (table["l2_high"] == 0).all()


@pytest.mark.parametrize("factor", [0.5, 1.25, 3.0])
def test_a_scaled_copy_is_off_by_the_scale_and_points_the_same_way(measure, factor):
    table = measure("qwen2", "qwen2", change=lambda layer, x: x[:, 1].mul_(factor))
    assert table["relative_l2"].tolist() == pytest.approx([abs(factor - 1)] * len(table), rel=1e-6)
    assert table["cosine"].tolist() == pytest.approx([1.0] * len(table), abs=1e-6)


def test_an_opposite_copy_has_cosine_minus_1_and_twice_the_norm(measure):
    table = measure("qwen2", "qwen2", change=lambda layer, x: x[:, 1].neg_())
    assert table["cosine"].tolist() == pytest.approx([-1.0] * len(table), abs=1e-6)
    assert table["relative_l2"].tolist() == pytest.approx([2.0] * len(table), rel=1e-6)


def test_figures_equal_the_direct_computation(measure, small_models, numbers_table, stream_settings):
    table = measure("qwen2", "llama").set_index(["layer", "mask"])
    infos = [small_models["qwen2"], small_models["llama"]]
    stream = ActivationStream(infos, [1], numbers_table, [], stream_settings(), 200, "cpu", "float32")
    blocks = list(stream(EVERYTHING))
    x = torch.cat([block.activations[1] for block in blocks]).double()
    kept = torch.cat([block.kept for block in blocks])
    for mask, chosen in {"all": torch.ones_like(kept), "unmasked": kept}.items():
        difference, first = (x[chosen, 1] - x[chosen, 0]).norm(dim=1), x[chosen, 0].norm(dim=1)
        row = table.loc[1, mask]
        assert row["l2"] == pytest.approx(difference.mean().item())
        assert row["relative_l2"] == pytest.approx((difference.mean() / first.mean()).item())
        cosine = (x[chosen, 0] * x[chosen, 1]).sum(1) / (first * x[chosen, 1].norm(dim=1))
        assert row["cosine"] == pytest.approx(cosine.mean().item())
        assert row["n_tokens"] == int(chosen.sum()) and row["n_problems"] == 18
        assert row["l2_low"] < row["l2"] < row["l2_high"]


def test_sinks_weigh_on_all_tokens_and_not_on_the_unmasked(measure):
    def add_sink(layer, x):
        x[5] *= 1000.0

    plain = measure("qwen2", "other").set_index(["mask", "layer"])
    sunk = measure("qwen2", "other", change=add_sink).set_index(["mask", "layer"])
    assert (sunk.loc["all", "l2"] > 3 * plain.loc["all", "l2"]).all()
    assert np.allclose(sunk.loc["unmasked", "l2"], plain.loc["unmasked", "l2"], rtol=0.05)


def test_layers_are_suggested_by_their_relative_distance(measure):
    table = measure("qwen2", "qwen2", change=lambda layer, x: x[:, 1].mul_(1.0 + (0.1, 0.3, 0.2)[layer]), suggest=2)
    assert table.groupby("layer")["suggested"].first().to_dict() == {0: 0, 1: 1, 2: 2}


def test_every_other_model_gets_its_rows_and_reading_stops_when_there_is_enough(measure):
    table = measure("qwen2", "other", "llama", tokens=1)
    assert table.groupby("model").size().to_dict() == {"other": 6, "llama": 6}  # 3 layers, 2 masks
    assert 0 < table["n_tokens"].max() <= 3 * 200  # one block of 3 rows


# ------------------------------------------------------------------------- one residual stream, turned or rescaled


@pytest.fixture
def measure_against(small_models, numbers_table, stream_settings, tmp_path):
    """`measure_against(turn)`: unmasked rows of a model beside itself with the residual stream mapped by `turn`
    [unit, unit], an orthogonal matrix or a multiple of one: the same function, written in other weights."""

    def run(turn):
        info = small_models["qwen2"]
        model = load_model(info, "cpu", "float32")
        scale = turn[0].norm()  # the norms take it out again
        with torch.no_grad():  # the norms' weights are ones, so that they commute with a turn
            model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ turn)
            for block in model.model.layers:
                for reading in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj,
                                block.mlp.gate_proj, block.mlp.up_proj):  # fmt: skip
                    reading.weight.copy_(reading.weight @ turn / scale)
                for writing in (block.self_attn.o_proj, block.mlp.down_proj):
                    writing.weight.copy_(turn.T @ writing.weight)
        model.save_pretrained(tmp_path / "turned")
        infos = [info, describe_model("turned", tmp_path / "turned")]
        stream = ActivationStream(infos, [0, 1, 2], numbers_table, [], stream_settings(), 200, "cpu", "float32")
        table = measure_divergence(stream, calibrate(stream, EVERYTHING, 10_000), EVERYTHING, 10_000, 1, seed=0)
        return table[table["mask"] == "unmasked"]

    return run


def test_a_turned_residual_stream_is_known_by_what_turning_it_back_gives(measure_against):
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    table = measure_against(turn)
    assert (table["cosine"].abs() < 0.7).all() and table["norm_ratio"].tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    seen = table.dropna(subset="turned_cosine")
    assert seen["layer"].tolist() == [2]  # half, two and five sixths of three layers
    assert (seen["centred_cosine"].abs() < 0.5).all() and (seen["turned_cosine"] > 0.99).all()


def test_a_rescaled_residual_stream_keeps_its_directions_and_changes_its_norm(measure_against):
    table = measure_against(3 * torch.eye(16))
    assert table["norm_ratio"].tolist() == pytest.approx([3.0] * 3, rel=1e-3)
    seen = table.dropna(subset="turned_cosine")
    assert seen["centred_cosine"].tolist() == pytest.approx([1.0] * len(seen), abs=1e-3)
    assert seen["turned_cosine"].tolist() == pytest.approx([1.0] * len(seen), abs=1e-2)


def test_models_that_have_nothing_in_common_are_not_taken_for_turned_ones(measure):
    table = measure("qwen2", "llama").dropna(subset="turned_cosine")
    assert len(table) and (table["turned_cosine"] < 0.8).all()


def test_the_gain_of_a_turn_is_judged_on_problems_that_it_was_not_fitted_on():
    """Independent directions, as many tokens as units: judged on the same ones, a turn would seem to gain much."""
    draw = torch.Generator().manual_seed(0)
    turn = _Turn(64)
    turn.add(torch.randn(128, 64, generator=draw), torch.randn(128, 64, generator=draw), np.arange(128) % 2)
    assert abs(turn.cosines()[1]) < 0.1


@pytest.mark.parametrize(("layers", "chosen"), [([0, 1], [1]), (list(range(28)), [14, 19, 23]), ([5], [5])])
def test_a_turn_is_looked_for_in_the_upper_half(layers, chosen):
    assert upper_layers(layers) == chosen
