"""What is patched in and what is taken out is what counting by hand gives; the ends are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasondiff.dictionaries.crosscoder import fold
from reasondiff.dictionaries.spliced_losses import SPLICED_PHASES
from reasondiff.evidence.effects import effect_rows
from reasondiff.evidence.patching import ABLATED, ALL, ERROR, EVERYTHING, NOTHING, PATCHED, EffectSums, set_changes
from reasondiff.models.stream import ActivationStream, calibrate

WIDTH, LATENTS, LAYER = 16, 40, 0
SETS = {"few": np.array([3, 7]), "none": np.array([], dtype=int), "whole": np.arange(LATENTS)}


def random_crosscoder(seed: int = 0):
    """A crosscoder of two models of width 16 with random weights, and with biases."""
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 2.0])
    return fold(draw(LATENTS, 2 * WIDTH), draw(LATENTS), draw(LATENTS, 2 * WIDTH), draw(2 * WIDTH), scale, 1.0, 4, {})


# ------------------------------------------------------------------------------------------------ activations


@pytest.fixture(scope="module")
def changed():
    """`changed(direction, row)`: activations changed, with x, the dense code and the decoder rows [model]."""
    crosscoder = random_crosscoder()
    x = torch.randn(50, 2, WIDTH, generator=torch.Generator().manual_seed(1))
    code = crosscoder.encode(x)
    changes = set_changes(crosscoder, SETS)
    rows = crosscoder.decoder.view(LATENTS, 2, WIDTH).transpose(0, 1)
    return lambda *key: changes[key](x, code), x, code.dense(), rows, crosscoder


def test_a_patch_moves_the_base_by_the_difference_of_the_decoder_rows_of_the_set(changed):
    of, x, dense, rows, _ = changed
    expected = x[:, 0] + sum(dense[:, j, None] * (rows[1, j] - rows[0, j]) for j in (3, 7))
    torch.testing.assert_close(of(PATCHED, "few"), expected)
    assert (of(PATCHED, "few") - x[:, 0]).abs().max() > 0.1, "the two latents fire on these tokens"


def test_an_ablation_takes_out_what_the_set_writes_to_the_reasoning_model(changed):
    of, x, dense, rows, _ = changed
    torch.testing.assert_close(of(ABLATED, "few"), x[:, 1] - sum(dense[:, j, None] * rows[1, j] for j in (3, 7)))


def test_the_empty_set_does_nothing_and_the_set_of_all_is_the_row_of_all(changed):
    of, x, *_ = changed
    assert torch.equal(of(PATCHED, "none"), of(PATCHED, NOTHING)) and torch.equal(of(PATCHED, NOTHING), x[:, 0])
    assert torch.equal(of(ABLATED, "none"), x[:, 1])
    for direction in (PATCHED, ABLATED):
        torch.testing.assert_close(of(direction, "whole"), of(direction, ALL))


def test_latents_and_error_together_are_the_whole_difference(changed):
    of, x, _, _, crosscoder = changed
    both = of(PATCHED, ALL) + of(PATCHED, ERROR) - x[:, 0]
    torch.testing.assert_close(both, of(PATCHED, EVERYTHING), atol=1e-4, rtol=0)
    torch.testing.assert_close(of(ABLATED, ERROR) + of(ABLATED, ALL), x[:, 1], atol=1e-4, rtol=0)
    bias = crosscoder.decoder_bias.view(2, WIDTH)
    kept = crosscoder.decode(crosscoder.encode(x))[:, 1] - bias[1]
    torch.testing.assert_close(of(ABLATED, ERROR), kept, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------ predictions


@pytest.fixture(scope="module")
def stream(small_models, numbers_table, stream_settings):
    infos = [small_models["qwen2"], small_models["other"]]
    return ActivationStream(infos, [LAYER], numbers_table, [], stream_settings(), 200, "cpu", "float32")


@pytest.fixture(scope="module")
def sums(stream):
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[LAYER]
    return EffectSums(stream, LAYER, statistics, {"ours": random_crosscoder()}, {"ours": SETS}).run(10**6)["ours"]


def total(sums, *key, phase="response"):
    return sums[key][:, list(SPLICED_PHASES).index(phase)].sum(0)


def test_the_reasoning_models_own_activations_change_nothing(sums):
    kl, before, after, targets = total(sums, PATCHED, EVERYTHING)
    assert targets > 100 and abs(kl) < 1e-3 and after == pytest.approx(before, abs=1e-3)
    assert total(sums, ABLATED, "none")[0] == pytest.approx(0, abs=1e-3)


def test_the_bases_activations_do_change_predictions_and_so_do_patches(sums):
    nothing, few = total(sums, PATCHED, NOTHING)[0], total(sums, PATCHED, "few")[0]
    assert nothing > 0.1 and abs(few - nothing) > 1e-3
    assert total(sums, ABLATED, "few")[0] > 1e-3


def test_each_target_is_counted_once_under_its_problem_and_phase(sums, stream):
    table = stream.table
    counted = sums[PATCHED, NOTHING][:, list(SPLICED_PHASES).index("think"), 3]
    from reasondiff.text.rendering import PHASES

    for document in table.documents_of("report"):
        start, end = table.starts[document : document + 2]
        think = (table.phases[start + 1 : end] == PHASES.index("think")).sum()
        assert counted[table.problem[document]] >= think
    reported = sum(
        (table.phases[table.starts[d] + 1 : table.starts[d + 1]] == PHASES.index("think")).sum()
        for d in table.documents_of("report")
    )
    assert counted.sum() == reported


# ------------------------------------------------------------------------------------------------ the table

KL, BEFORE = 2.0, 1.0


def made_up(after_kl: float, problems: int = 30, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """[problem, phase, quantity] of one phase: KL per target about `after_kl`, CE rises by as much."""
    random = np.random.default_rng(seed)
    targets = random.integers(20, 40, problems).astype(float)
    kl = targets * (after_kl + noise * random.standard_normal(problems))
    return np.stack([kl, targets * BEFORE, targets * BEFORE + kl, targets], axis=1)[:, None]


def table_of(own: float, random: list[float], problems: int = 30, least: int = 6):
    sums = {(PATCHED, NOTHING): made_up(KL, problems), (PATCHED, "top"): made_up(own, problems)}
    names = [f"top.random{number:02d}" for number in range(len(random))]
    sums |= {(PATCHED, name): made_up(value, problems) for name, value in zip(names, random, strict=True)}
    matched = {"top": names if random else "not testable: nothing is like it"}
    table = effect_rows(sums, ["response"], matched, {"top": 5}, resamples=300, seed=0, min_problems=least)
    return table.set_index(["set", "quantity"])


def test_a_set_that_removes_more_than_its_random_sets_has_a_positive_excess():
    row = table_of(0.5, [1.5] * 20).loc[("top", "kl_removed")]
    assert row["value"] == pytest.approx(0.75, abs=0.02) and row["random_mean"] == pytest.approx(0.25, abs=0.02)
    assert row["excess"] == pytest.approx(0.5, abs=0.02) and 0 < row["excess_low"] <= row["excess_high"]
    assert row["p"] == pytest.approx(1 / 21) and row["n_random"] == 20 and row["size"] == 5
    assert row["n_problems"] == 30 and row["status"] == "tested"


def test_a_set_like_its_random_sets_has_an_excess_around_0_and_a_large_p():
    spread = list(np.linspace(1.3, 1.7, 20))
    row = table_of(1.5, spread).loc[("top", "kl_removed")]
    assert row["excess_low"] < 0.01 and row["excess"] == pytest.approx(0, abs=0.01) and row["p"] > 0.4
    assert (row["random_low"], row["random_high"]) == pytest.approx((1 - 1.7 / 2, 1 - 1.3 / 2), abs=0.02)


def test_without_random_sets_the_row_says_why_and_nothing_is_imputed():
    row = table_of(0.5, []).loc[("top", "kl_removed")]
    assert row["status"] == "not testable: nothing is like it" and row["value"] == pytest.approx(0.75, abs=0.02)
    assert row[["random_mean", "excess", "excess_low", "p"]].isna().all()


def test_with_too_few_problems_there_is_no_interval_and_the_row_says_so():
    row = table_of(0.5, [1.5] * 20, problems=5).loc[("top", "kl_removed")]
    assert row["status"] == "not testable: 5 problems, expected 6 or more" and np.isnan(row["excess_low"])


def test_random_sets_have_no_rows_of_their_own():
    assert set(table_of(0.5, [1.5] * 20).reset_index()["set"]) == {NOTHING, "top"}
