"""Are groups of latents compared as docs/methods.md §5 asks: by latents, matched, and with an interval or none?"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from reasondiff.labels.comparison import CALIPER, against_control, exclusive_against_shared, match, summary
from reasondiff.latents.example_table import SILENT

RESAMPLES, SEED = 500, 0


def scores(rows, control="own", task="detection", negatives="all", **path):
    """Label scores from (latent, tag, phase, balanced accuracy)."""
    table = pd.DataFrame(rows, columns=["latent", "tag", "phase", "balanced_accuracy"])
    table = table.assign(task=task, negatives=negatives, control=control, measure="pattern fit")
    table = table.assign(low=np.nan, high=np.nan, n_positive=12, n_negative=18, n_unanswered=0)
    return table.assign(**{"pair": "base-distill", "text": "traces", "layer": 3, "point": "p", "seed": 0, **path})


def firing(rates, **path):
    """Firing tables from {latent: (rate, maximum)}."""
    table = pd.DataFrame([(latent, *facts) for latent, facts in rates.items()])
    table.columns = ["latent", "rate", "max_activation"]
    return table.assign(**{"pair": "base-distill", "text": "traces", "layer": 3, "point": "p", "seed": 0, **path})


def some(n, tag="shared", value=0.8, start=0, phase="think"):
    return [(start + i, tag, phase, value + 0.01 * (i % 3)) for i in range(n)]


# ------------------------------------------------------------------------------------------------ summaries


def test_a_group_has_the_mean_over_its_latents_and_the_number_of_windows():
    table = scores([(i, "shared", "think", value) for i, value in enumerate([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])])
    row = summary(table, "tag", RESAMPLES, SEED).iloc[0]
    assert row["value"] == pytest.approx(0.75) and row["low"] < 0.75 < row["high"]
    assert (row["group"], row["n_latents"], row["n_windows"], row["reason"]) == ("shared", 6, 6 * 30, "")


@pytest.mark.parametrize("split", ["all", "tag", "layer", "phase"])
def test_latents_are_split_by_tag_layer_and_phase(split):
    table = pd.concat([
        scores(some(6)), scores(some(7, "other", phase="prompt", start=20), layer=5),
    ])  # fmt: skip
    found = summary(table, split, RESAMPLES, SEED)
    groups = {"all": {"all": 13}, "tag": {"shared": 6, "other": 7}, "layer": {"3": 6, "5": 7}}
    expected = groups.get(split, {"think": 6, "prompt": 7})
    assert dict(zip(found["group"], found["n_latents"], strict=True)) == expected
    assert set(found["split"]) == {split}


def test_tasks_kinds_of_negatives_and_controls_are_never_pooled():
    parts = [
        scores(some(6, value=0.01 * i), control, "detection", negatives)
        for i, (control, negatives) in enumerate(itertools.product(("own", "shuffled"), ("all", *SILENT)))
    ]
    found = summary(pd.concat(parts), "all", RESAMPLES, SEED)
    assert len(found) == 8 and found["value"].nunique() == 8 and (found["n_latents"] == 6).all()


def test_below_six_latents_there_is_no_figure_and_the_reason_is_said():
    row = summary(scores(some(5)), "tag", RESAMPLES, SEED).iloc[0]
    assert math.isnan(row["value"]) and math.isnan(row["low"]) and math.isnan(row["high"])
    assert row["reason"] == "too few: 5 latents, 6 are needed" and row["n_latents"] == 5


def test_latents_without_a_score_do_not_count():
    table = scores(some(6) + [(9, "shared", "think", math.nan)])
    assert summary(table, "all", RESAMPLES, SEED)["n_latents"].tolist() == [6]


def test_transcoders_are_told_apart_by_model():
    table = scores(some(6)).drop(columns="pair").assign(model="distill")
    assert summary(table, "layer", RESAMPLES, SEED)["model"].tolist() == ["distill"]
    with pytest.raises(ValueError, match="expected label scores with the column pair or the column model"):
        summary(table.drop(columns="model"), "layer", RESAMPLES, SEED)


def test_the_interval_over_latents_covers_the_mean_in_about_nineteen_of_twenty_draws():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(300):
        values = generator.beta(6, 2, size=40)
        row = summary(scores([(i, "shared", "think", v) for i, v in enumerate(values)]), "all", 200, SEED).iloc[0]
        covered += row["low"] <= 0.75 <= row["high"]
    assert 0.90 <= covered / 300 <= 0.99


def test_a_label_is_compared_with_the_shuffled_one_of_the_same_latent():
    own = scores([(i, "shared", "think", 0.7 + 0.02 * i) for i in range(8)])
    shuffled = scores([(i, "shared", "think", 0.4 + 0.02 * i) for i in range(7)], "shuffled")  # 7 is alone in its cell
    row = against_control(pd.concat([own, shuffled]), "shuffled", RESAMPLES, SEED).iloc[0]
    # every latent gains exactly 0.3, so that the interval has no width although the scores differ
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.3, 0.3, 0.3))
    assert row["n_latents"] == 7


def test_latents_of_one_number_in_two_dictionaries_are_compared_each_with_its_own():
    parts = [
        scores(some(6, value=value + shift), control, seed=seed)
        for seed, shift in ((0, 0.0), (1, 0.3))
        for control, value in (("own", 0.6), ("shuffled", 0.5))
    ]
    row = against_control(pd.concat(parts), "shuffled", RESAMPLES, SEED).iloc[0]
    assert row["value"] == pytest.approx(0.1) and row["n_latents"] == 12


# ------------------------------------------------------------------------------------------------ exclusive, shared


def test_exclusive_latents_are_compared_with_shared_ones_that_fire_alike():
    """The frequent shared latents are the better labelled ones; they are no match for rare exclusive ones."""
    table = scores(
        some(8, "reasoning_only", 0.7) + some(8, "shared", 0.6, start=10) + some(20, "shared", 0.95, start=30)
    )
    rates = {i: (0.001, 2.0) for i in range(8)} | {10 + i: (0.0012, 2.1) for i in range(8)}
    rates |= {30 + i: (0.1, 9.0) for i in range(20)}
    row = exclusive_against_shared(table, firing(rates), RESAMPLES, SEED).iloc[0]
    assert row["difference"] == pytest.approx(0.1) and row["low"] > 0
    assert (row["n_matched"], row["n_exclusive"], row["n_shared"], row["side"]) == (8, 8, 28, "reasoning")
    assert row["exclusive"] - row["shared"] == pytest.approx(row["difference"])


def test_without_six_matches_nothing_is_said_of_the_difference():
    table = scores(some(8, "reasoning_only") + some(8, "shared", start=10))
    rates = {i: (0.001, 2.0) for i in range(8)} | {10 + i: (0.001 if i < 5 else 0.003, 2.0) for i in range(8)}
    row = exclusive_against_shared(table, firing(rates), RESAMPLES, SEED).iloc[0]
    assert math.isnan(row["difference"]) and math.isnan(row["exclusive"])
    assert row["reason"] == "too few: 5 matched latents, 6 are needed" and row["n_matched"] == 5


def test_latents_are_matched_within_their_dictionary_only():
    one = scores(some(8, "reasoning_only"), seed=0)
    other = scores(some(8, "shared"), seed=1)
    rates = {i: (0.001, 2.0) for i in range(8)}
    tables = pd.concat([firing(rates, seed=0), firing(rates, seed=1)])
    row = exclusive_against_shared(pd.concat([one, other]), tables, RESAMPLES, SEED).iloc[0]
    assert row["n_matched"] == 0 and row["n_exclusive"] == 8 and row["n_shared"] == 8


def test_leaning_latents_count_as_exclusive_where_delta_is_known():
    table = scores(some(8, "other", 0.9) + some(8, "shared", 0.7, start=10) + some(2, "base_only", start=30))
    rates = {i: (0.001, 2.0) for i in table["latent"]}
    assert exclusive_against_shared(table, firing(rates), RESAMPLES, SEED)["n_exclusive"].tolist() == [0]
    leaning = table.assign(delta=[0.29] * 8 + [0.5] * 8 + [0.95] * 2)
    row = exclusive_against_shared(leaning, firing(rates), RESAMPLES, SEED).iloc[0]
    assert row["n_exclusive"] == 8 and row["difference"] == pytest.approx(0.2)
    assert exclusive_against_shared(leaning, firing(rates), RESAMPLES, SEED, "base")["n_exclusive"].tolist() == [2]


def test_controls_take_no_part_in_the_comparison():
    own = scores(some(8, "reasoning_only", 0.7) + some(8, "shared", 0.6, start=10))
    shuffled = scores(some(8, "reasoning_only", 0.1) + some(8, "shared", 0.9, start=10), "shuffled")
    rates = {i: (0.001, 2.0) for i in own["latent"]}
    found = exclusive_against_shared(pd.concat([own, shuffled]), firing(rates), RESAMPLES, SEED)
    assert found["difference"].tolist() == pytest.approx([0.1])


def test_a_scored_latent_without_a_firing_rate_is_refused():
    with pytest.raises(ValueError, match="expected every scored latent in the firing tables"):
        exclusive_against_shared(scores(some(8)), firing({0: (0.1, 1.0)}), RESAMPLES, SEED)


def test_empty_scores_give_empty_tables():
    empty = scores(some(1)).iloc[:0]
    assert not len(summary(empty, "tag", RESAMPLES, SEED))
    assert not len(against_control(empty, "shuffled", RESAMPLES, SEED))
    assert not len(exclusive_against_shared(empty, firing({0: (0.1, 1.0)}), RESAMPLES, SEED))


# ------------------------------------------------------------------------------------------------ matching


def test_matching_finds_as_many_couples_as_there_can_be():
    """Taking the nearest first would give 0 to 0 and leave 1 alone."""
    first, second = np.array([[0.0], [0.2]]), np.array([[0.05], [-0.3]])
    assert match(first, second, 0.4) == [(0, 1), (1, 0)]


def test_matching_is_as_good_as_trying_every_way():
    generator = np.random.default_rng(0)
    for _ in range(20):
        first, second = generator.normal(size=(4, 2)), generator.normal(size=(5, 2))
        near = (np.abs(first[:, None] - second[None]) <= 1.0).all(-1)
        distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
        best = max(
            (sum(near[i, j] for i, j in enumerate(way)), -sum(distance[i, j] for i, j in enumerate(way) if near[i, j]))
            for way in itertools.permutations(range(5), 4)
        )
        found = match(first, second, 1.0)
        assert len(found) == best[0] and sum(distance[i, j] for i, j in found) == pytest.approx(-best[1])
        assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)


def test_a_couple_differs_by_no_more_than_the_caliper_in_each_column():
    assert CALIPER == pytest.approx(math.log(2))
    one = np.log([[0.01, 1.0]])
    assert match(one, np.log([[0.0199, 1.99]]), CALIPER) == [(0, 0)]
    assert match(one, np.log([[0.0201, 1.0]]), CALIPER) == [] == match(one, np.log([[0.01, 2.01]]), CALIPER)
    assert match(one, np.array([[-np.inf, 0.0]]), CALIPER) == [] == match(one, one[:0], CALIPER)
