"""Is a difference between graphs found when it is there, and not when it is not, or is no more than its null's?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from made_up_motifs import (  # noqa: E402
    HEADLINE,
    PROMPTS,
    SETTINGS,
    facts_of,
    measured_at_random,
    motifs_of,
    prompt_names,
    summary_of,
)

from reasondiff.motifs.comparison import (  # noqa: E402
    AT_EQUAL_SIZE,
    COLUMNS,
    compare_graphs,
    correct_incorrect,
    judged_samples,
    published,
    reasoning_base,
    think_answer,
)
from reasondiff.motifs.measures import measure_graphs  # noqa: E402
from reasondiff.motifs.verdicts import (  # noqa: E402
    FOUND,
    NOT_FOUND,
    NOT_TESTABLE,
    at_equal_size,
    chance,
    relabellings,
    smallest_p,
    under_exchanged_labels,
)
from reasondiff.statistics import adjusted  # noqa: E402

FFL = "signed coherent_ffl"
OUTCOMES = ("correct", "incorrect")
ENOUGH = {prompt: 8 for prompt in prompt_names(40)}


def measured(summary, seed=1, effect=lambda graph, motif: 0.0, tokens=70, motifs=None, **how):
    table = motifs_of(summary, seed, effect=effect, **how) if motifs is None else motifs
    return measure_graphs(summary, table, facts_of(summary, tokens), HEADLINE)


def row(table, measure):
    rows = table[table["measure"] == measure]
    assert len(rows) == 1
    return rows.iloc[0]


def claims(table):
    return table[table["measure_family"] != "match"]


def of_model(model, size, motif="coherent_ffl"):
    return lambda graph, name: size * (graph["model"] == model and name == motif)


def of_target(target, size, motif="coherent_ffl"):
    return lambda graph, name: size * (graph["target"] == target and name == motif)


# ------------------------------------------------------------------------------------------------ p-values


def test_with_three_prompts_p_is_the_share_of_the_eight_relabellings_that_reach_the_difference():
    signs = relabellings(3, 999, 0)
    assert signs.shape == (8, 3) and (signs[0] == 1).all() and len({tuple(row) for row in signs}) == 8
    difference = np.array([[1.0, 3.0], [2.0, -1.0], [4.0, 0.5]])
    # all of one sign: one of eight reaches the sum 7, twice for two sides. 3 - 1 + .5 = 2.5: reached by +3 with
    # (-1, +.5), (-1, -.5) no: 1.5, (+1, +.5), (+1, -.5), so by 3 of 8
    assert chance(difference, np.zeros((3, 2)), signs) == pytest.approx([2 / 8, 6 / 8])


def test_differences_of_zero_have_p_one_and_no_prompts_no_p():
    signs = relabellings(4, 999, 0)
    difference = np.column_stack([np.zeros(4), np.full(4, np.nan)])
    assert chance(difference, np.zeros((4, 2)), signs) == pytest.approx([1.0, np.nan], nan_ok=True)


def test_many_prompts_are_relabelled_at_random_and_the_labels_as_they_are_come_first():
    signs = relabellings(30, 99, 5)
    assert signs.shape == (100, 30) and (signs[0] == 1).all() and set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs[1:].mean()) < 0.1 and not np.array_equal(signs, relabellings(30, 99, 6))
    assert chance(np.ones((30, 1)), np.zeros((30, 1)), signs)[0] == pytest.approx(smallest_p(30, 99))
    assert smallest_p(6, 999) == 2 / 64


def slow_p(difference, null, signs, size=None, null_size=None):
    """`chance` of one measure, relabelling by relabelling."""

    def figures(y, x):
        if x is None:
            return [(s * y).mean() for s in signs]
        slope = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
        line = np.column_stack([x, np.ones(len(x))])
        changed = (slope * x + s * (y - slope * x) for s in signs)
        return [np.linalg.lstsq(line, values, rcond=None)[0][1] for values in changed]

    def one_sided(sign):
        worst = 0.0
        for factor in (-1, 1):
            x = None if size is None else size + factor * null_size
            found = figures(sign * (difference + factor * null), x)
            worst = max(worst, np.mean([one >= found[0] - 1e-9 for one in found]))
        return worst

    return min(1.0, 2 * min(one_sided(1), one_sided(-1)))


@pytest.mark.parametrize("by_size", [False, True])
def test_p_equals_that_of_plain_loops(by_size):
    rng = np.random.default_rng(3)
    difference, null = rng.normal(0.7, 1, (8, 5)), rng.normal(0, 0.3, (8, 5))
    size, null_size = rng.normal(0.5, 1, (8, 5)), rng.normal(0, 1, (8, 5))
    sizes = (size, null_size) if by_size else ()
    signs = relabellings(8, 999, 0)
    expected = [
        slow_p(difference[:, k], null[:, k], signs, *(one[:, k] for one in sizes)) for k in range(difference.shape[1])
    ]
    assert chance(difference, null, signs, *sizes) == pytest.approx(expected)
    assert len({round(p, 6) for p in expected}) > 2


def test_a_prompt_without_a_value_takes_no_part():
    difference = np.array([[1.0], [2.0], [4.0], [np.nan], [5.0]])
    null = np.array([[0.1], [0.2], [0.1], [0.3], [np.nan]])
    few = chance(difference[:3], null[:3], relabellings(3, 999, 0))
    assert chance(difference, null, relabellings(5, 999, 0)) == pytest.approx(few)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_must_exceed_its_null_in_either_direction(sign):
    noise = 0.01 * np.random.default_rng(0).normal(size=(10, 1))
    signs, null = relabellings(10, 9999, 0), np.full((10, 1), 0.5)
    assert chance(sign * null + noise, null, signs)[0] > 0.05
    assert chance(sign * 1.5 * null + noise, null, signs)[0] == pytest.approx(2 / 1024)
    assert chance(sign * 0.5 * null + noise, null, signs)[0] == 1.0


def test_sizes_that_differ_make_no_difference_at_equal_size():
    rng, signs = np.random.default_rng(5), relabellings(12, 999, 0)
    size = rng.normal(0.4, 0.3, (12, 2000))
    zeros = np.zeros_like(size)
    follows = 0.8 * size + rng.normal(0, 0.5, size.shape)
    assert (chance(follows, zeros, signs) <= 0.05).mean() > 0.3
    p = chance(follows, zeros, signs, size, zeros)
    assert [(p <= level).mean() for level in (0.05, 0.1)] == pytest.approx([0.05, 0.1], abs=0.025)
    assert (chance(follows + 0.8, zeros, signs, size, zeros) <= 0.05).mean() > 0.3


def test_sizes_that_are_all_alike_determine_no_intercept():
    signs, difference = relabellings(6, 999, 0), np.arange(6.0)[:, None]
    assert np.isnan(chance(difference, 0 * difference, signs, np.full((6, 1), 0.3), np.zeros((6, 1))))


def test_labels_exchanged_within_prompts_give_a_null_about_zero():
    signs = relabellings(8, 999, 0)
    mean, low, high = under_exchanged_labels(np.full((8, 1), 0.5), signs)[:, 0]
    assert mean == pytest.approx(0) and low == -high and 0.2 < high < 0.5
    # the mean of eight signs, times .5: its 97.5 % point is that of (2 B - 8) / 16 for B binomial (8, .5)
    assert high == pytest.approx((2 * 7 - 8) / 16)


def test_the_difference_at_equal_size_is_the_intercept():
    size = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    found = at_equal_size(0.3 + 2 * size, size, 200, 0)
    assert (found.value, found.n) == pytest.approx((0.3, 6)) and found.low == pytest.approx(0.3)
    flat = at_equal_size(np.arange(6.0), np.zeros(6), 200, 0)
    assert flat.value == pytest.approx(2.5) and flat.low < 2.5 < flat.high


# ------------------------------------------------------------------------------------------------ reasoning and base


def test_a_planted_difference_between_models_is_found_and_nothing_else():
    summary = summary_of(prompt_names(20), 0)
    table = reasoning_base(measured(summary, effect=of_model("distill", 0.4)), PROMPTS, SETTINGS)
    found = row(table, FFL)
    assert found["verdict"] == FOUND and found["low"] < 0.4 < found["high"] and found["low"] > 0.2
    assert (found["group_a"], found["group_b"], found["n"], found["null_n"]) == ("distill/seed0", "base/seed0", 20, 20)
    assert found["null"] == "seed against seed" and found["null_low"] < 0 < found["null_high"]
    assert "20 of 20 prompts have both" in found["reason"] and "; at equal size as well" in found["reason"]
    assert set(claims(table)["verdict"]) == {FOUND, NOT_FOUND} and (claims(table)["verdict"] == FOUND).sum() == 1
    assert list(table.columns) == COLUMNS and set(table["unit"]) == {"prompt"}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_that_a_second_seed_shows_as_well_is_not_found(sign):
    shifts = {("distill", 0): 0.4, ("base", 0): 0.0, ("base", 1): sign * 0.4}
    summary = summary_of(prompt_names(20), 0)
    effect = lambda graph, motif: shifts[graph["model"], graph["seed"]] * (motif == "coherent_ffl")  # noqa: E731
    found = row(reasoning_base(measured(summary, effect=effect), PROMPTS, SETTINGS), FFL)
    assert found["verdict"] == NOT_FOUND and found["low"] > 0.2
    assert found["null_difference"] == pytest.approx(sign * 0.4, abs=0.05)
    assert "not larger than the difference between two seeds" in found["reason"]


def test_values_are_means_over_prompts_of_means_over_their_common_targets():
    summary = summary_of(["p", "q"], 0)
    sizes = {"prompt": 1.0, "think": 2.0, "answer": 6.0}
    effect = lambda graph, motif: sizes[graph["target"]] * (graph["model"] == "distill")  # noqa: E731
    motifs = motifs_of(summary, 1, effect=effect, spread=0.0)
    of_q = (motifs["prompt_id"] == "q") & (motifs["target"] == "answer")
    motifs.loc[of_q & (motifs["source"] == "base/seed0"), "log_ratio"] = np.nan
    found = row(reasoning_base(measured(summary, motifs=motifs), PROMPTS, SETTINGS), FFL)
    # p: (1 + 2 + 6) / 3; q without its answer: (1 + 2) / 2
    assert found["value_a"] == pytest.approx((3.0 + 1.5) / 2) and found["value_b"] == 0
    assert found["difference"] == pytest.approx(2.25) and found["n"] == 2


def test_prompts_that_lack_one_side_are_left_out_and_counted():
    summary = summary_of(prompt_names(14), 0)
    lacking = summary["model"].eq("base") & summary["seed"].eq(0) & summary["prompt_id"].isin(["p00", "p01", "p02"])
    summary.loc[lacking, "status"] = "failed"
    traced = summary[summary["status"] == "traced"]
    table = reasoning_base(measured(traced, effect=of_model("distill", 0.4)), PROMPTS, SETTINGS)
    found = row(table, FFL)
    assert (found["n"], found["verdict"]) == (11, FOUND) and "11 of 14 prompts have both" in found["reason"]


def test_prompts_that_lack_the_second_seed_count_for_the_difference_and_not_for_the_null():
    summary = summary_of(prompt_names(14), 0)
    lacking = summary["seed"].eq(1) & summary["prompt_id"].isin(["p00", "p01"])
    table = reasoning_base(measured(summary[~lacking], effect=of_model("distill", 0.4)), PROMPTS, SETTINGS)
    assert tuple(row(table, FFL)[["n", "null_n", "verdict"]]) == (14, 12, FOUND)
    lacking = summary["seed"].eq(1) & (summary["prompt_id"] > "p03")
    few = row(reasoning_base(measured(summary[~lacking], effect=of_model("distill", 0.4)), PROMPTS, SETTINGS), FFL)
    assert (few["n"], few["verdict"]) == (14, NOT_TESTABLE) and "4 prompts have a value in the null's" in few["reason"]


def test_the_null_is_of_the_contexts_on_which_the_difference_is_known():
    summary = summary_of(prompt_names(10), 0)
    summary.loc[summary["model"].eq("distill") & (summary["prompt_id"] > "p07"), "depth"] = np.nan
    table = reasoning_base(measured(summary), PROMPTS, SETTINGS)
    assert tuple(row(table, "depth")[["n", "null_n"]]) == (8, 8)


def test_without_a_second_seed_a_base_or_graphs_nothing_is_testable_and_the_reason_is_given():
    summary = summary_of(prompt_names(8), 0)
    one_seed = reasoning_base(measured(summary[summary["seed"] == 0]), PROMPTS, SETTINGS)
    assert "no graphs of a second seed" in row(one_seed, FFL)["reason"] and row(one_seed, FFL)["n"] == 8
    alone = summary[summary["model"] == "distill"]
    no_base = reasoning_base(measured(alone), PROMPTS.model_copy(update={"base": None}), SETTINGS)
    assert "no base model" in row(no_base, FFL)["reason"]
    no_graphs = reasoning_base(measured(summary[summary["model"] == "base"]), PROMPTS, SETTINGS)
    assert "0 of 8 prompts have both; 6 are needed" in row(no_graphs, FFL)["reason"]
    for table in (one_seed, no_base, no_graphs):
        assert set(table["verdict"]) == {NOT_TESTABLE} and table[["p", "p_adjusted"]].isna().all(axis=None)
    assert row(no_graphs, "depth")["value_b"] == pytest.approx(0.5, abs=0.1)  # what there is, is described


def test_fewer_prompts_than_asked_for_are_not_tested_and_never_fewer_than_six():
    summary = summary_of(prompt_names(5), 0)
    few = reasoning_base(measured(summary), PROMPTS, SETTINGS.model_copy(update={"min_prompts": 1}))
    assert set(few["verdict"]) == {NOT_TESTABLE} and "6 are needed" in few["reason"].iloc[0]
    more = measured(summary_of(prompt_names(12), 0))
    asked = reasoning_base(more, PROMPTS, SETTINGS.model_copy(update={"min_prompts": 13}))
    assert "12 of 12 prompts have both; 13 are needed" in asked["reason"].iloc[0]


def test_a_measure_that_most_graphs_lack_is_not_testable_and_leaves_the_others_alone():
    summary = summary_of(prompt_names(20), 0)
    summary.loc[summary["prompt_id"] > "p03", "depth"] = np.nan
    table = reasoning_base(measured(summary, effect=of_model("distill", 0.4)), PROMPTS, SETTINGS)
    assert row(table, "depth")["verdict"] == NOT_TESTABLE and "4 prompts have a value" in row(table, "depth")["reason"]
    assert row(table, FFL)["verdict"] == FOUND


def test_a_rare_motif_is_not_testable():
    summary = summary_of(prompt_names(20), 0)
    table = reasoning_base(measured(summary, effect=of_model("distill", 0.4), expected=2.0), PROMPTS, SETTINGS)
    assert row(table, FFL)["verdict"] == NOT_TESTABLE and "expects it 2 times per graph" in row(table, FFL)["reason"]


def test_adjusted_p_covers_all_testable_claims_together():
    summary = summary_of(prompt_names(12), 0)
    motifs = pd.concat(
        [
            motifs_of(
                summary, 1, motifs=[("typed", f"m{k}") for k in range(4)], effect=of_model("distill", 0.12, "m0")
            ),
            motifs_of(summary, 2, motifs=[("typed", "rare")], expected=0.1),
        ]
    )
    table = reasoning_base(measured(summary, motifs=motifs), PROMPTS, SETTINGS)
    p = claims(table)["p"].dropna()
    # m0 to m3, three shapes, what is reused, and two figures of what is new; not the rare one
    assert len(p) == 10
    order = p.sort_values()
    by_hand = [min(order.iloc[j] * 10 / (j + 1) for j in range(i, 10)) for i in range(10)]
    assert table.loc[order.index, "p_adjusted"].to_numpy() == pytest.approx(np.minimum(by_hand, 1))


def grown(graph, motif):
    """A log ratio that follows from the number of edges, but for very little."""
    return 0.8 * np.log(graph["edges"] / 1000) + 0.005 * (graph["model"] == "distill" and graph["target"] != "answer")


@pytest.mark.parametrize("comparison", [reasoning_base, think_answer])
def test_what_size_explains_is_not_there_at_equal_size(comparison):
    summary = summary_of(prompt_names(30), 0)
    first = summary["model"].eq("distill") & summary["target"].ne("answer")
    sizes = np.random.default_rng(4).normal(0.4, 0.3, first.sum())
    summary.loc[first, "edges"] = (1000 * np.exp(sizes)).astype(int)
    table = comparison(measured(summary, effect=grown, spread=0.05), PROMPTS, SETTINGS)
    found, beside = row(table, FFL), row(table, FFL + AT_EQUAL_SIZE)
    assert found["verdict"] == FOUND and found["difference"] > 0.1
    assert beside["verdict"] == NOT_FOUND and 0 < beside["difference"] < 0.05 and beside["measure_family"] == "match"
    assert "not at equal size" in found["reason"] and "edges" in found["reason"].split("also differ in")[1]


def test_an_imbalance_is_not_excused_by_a_second_seed_with_the_same():
    summary = summary_of(prompt_names(20), 0)
    first = summary["model"].eq("base") & summary["seed"].eq(0)
    summary.loc[first, "edges"] += 500  # the base's two seeds differ as much as the models do
    table = reasoning_base(measured(summary), PROMPTS, SETTINGS)
    assert row(table, "edges")["verdict"] == FOUND and row(table, "edges")["difference"] < -400


def test_the_order_of_rows_does_not_matter_and_equal_tables_give_equal_bytes():
    summary = summary_of(prompt_names(9), 0)
    motifs = motifs_of(summary, 1, effect=of_model("distill", 0.2))
    first = reasoning_base(measured(summary, motifs=motifs), PROMPTS, SETTINGS)
    mixed = measured(summary.sample(frac=1, random_state=1), motifs=motifs.sample(frac=1, random_state=2))
    assert reasoning_base(mixed, PROMPTS, SETTINGS).to_csv() == first.to_csv()


# ------------------------------------------------------------------------------------------------ think and answer


def test_a_planted_difference_between_phases_is_found():
    summary = summary_of(prompt_names(15), 0, [("distill", 0), ("base", 0)])
    table = think_answer(measured(summary, effect=of_target("think", 0.3)), PROMPTS, SETTINGS)
    found = row(table, FFL)
    assert (found["verdict"], found["null"]) == (FOUND, "labels permuted within prompt")
    assert found["difference"] == pytest.approx(0.3, abs=0.1) and found["group_a"] == "distill/seed0 think"
    assert found["null_low"] < 0 < found["null_high"] < found["difference"] and found["null_n"] == 15


def test_exchanging_the_two_groups_turns_the_difference_and_leaves_p():
    summary = summary_of(prompt_names(15), 0, [("distill", 0)])
    turned = summary.assign(target=summary["target"].map({"think": "answer", "answer": "think", "prompt": "prompt"}))
    motifs = motifs_of(summary, 1, effect=of_target("think", 0.1))
    other = motifs.assign(target=motifs["target"].map({"think": "answer", "answer": "think", "prompt": "prompt"}))
    one = row(think_answer(measured(summary, motifs=motifs), PROMPTS, SETTINGS), FFL)
    two = row(think_answer(measured(turned, motifs=other), PROMPTS, SETTINGS), FFL)
    assert one["difference"] == pytest.approx(-two["difference"]) and one["p"] == pytest.approx(two["p"])
    assert one["low"] == pytest.approx(-two["high"]) and one["value_a"] == two["value_b"]


def test_only_targets_with_contexts_of_like_length_and_like_entropy_are_compared():
    summary = summary_of(prompt_names(12), 0, [("distill", 0)]).assign(entropy=0.3)
    of = summary["target"] == "think"
    summary.loc[of & (summary["prompt_id"] < "p03"), "entropy"] = 0.9  # .6 nats apart, .5 are allowed
    tokens = np.where(of & (summary["prompt_id"] > "p09"), 20, 70)  # 3.5 times as long, 2 are allowed
    found = row(think_answer(measured(summary, tokens=tokens), PROMPTS, SETTINGS), FFL)
    assert found["n"] == 7 and "12 of 12 prompts have both, 7 of these match" in found["reason"]
    table = think_answer(measured(summary, tokens=np.where(of, 20, 70)), PROMPTS, SETTINGS)
    assert set(table["verdict"]) == {NOT_TESTABLE} and "0 of these match" in row(table, FFL)["reason"]
    assert np.isfinite(row(table, FFL)["value_a"])  # both groups are described


# ------------------------------------------------------------------------------------------------ correct and incorrect


def test_a_planted_difference_between_outcomes_is_found():
    summary = summary_of(prompt_names(15), 0, [("distill", 0)], OUTCOMES)
    table = correct_incorrect(measured(summary, effect=of_target("correct", 0.3)), PROMPTS, SETTINGS, ENOUGH)
    assert row(table, FFL)["verdict"] == FOUND and row(table, FFL)["group_b"] == "distill/seed0 incorrect"


def test_prompts_with_too_few_judged_samples_are_left_out_and_counted():
    others = summary_of(["x", "y"], 1, [("base", 0)], ["answer"])  # of another model: not counted
    summary = pd.concat([summary_of(prompt_names(12), 0, [("distill", 0)], OUTCOMES), others], ignore_index=True)
    samples = {prompt: 8 if prompt < "p07" else 7 for prompt in prompt_names(12)}
    found = row(correct_incorrect(measured(summary), PROMPTS, SETTINGS, samples), FFL)
    assert found["n"] == 7 and "(5 prompts have fewer than 8 judged samples; 7 of" in found["reason"]
    none = correct_incorrect(measured(summary), PROMPTS, SETTINGS, {})
    assert set(none["verdict"]) == {NOT_TESTABLE} and none["n"].eq(0).all()


def test_prompts_with_one_outcome_only_are_not_compared():
    summary = summary_of(prompt_names(8), 0, [("distill", 0)], OUTCOMES)
    summary = summary[(summary["target"] == "correct") | (summary["prompt_id"] < "p05")]
    table = correct_incorrect(measured(summary), PROMPTS, SETTINGS, ENOUGH)
    assert set(table["verdict"]) == {NOT_TESTABLE}
    assert "5 of 8 prompts have both, 5 of these match" in row(table, FFL)["reason"] and row(table, FFL)["n"] == 5


def test_samples_are_counted_that_were_judged_and_are_the_models_own():
    rows = [("distill", "sampled", True)] * 3 + [("distill", "sampled", False), ("distill", "greedy", True)]
    responses = pd.DataFrame([*rows, ("base", "sampled", True)], columns=["model", "decoding", "judged"])
    assert judged_samples(responses.assign(prompt_id="p"), "distill") == {"p": 3}


# ------------------------------------------------------------------------------------------------ graphs from elsewhere


def with_published(summary, prompts, effect=0.0):
    """Measures with graphs from elsewhere of these prompts (None: unknown), as a folder of JSON gives them."""
    elsewhere = summary_of([f"g{k}" for k in range(len(prompts))], 9, [("x", 0)], ["prompt"])
    other = motifs_of(elsewhere, 3, effect=lambda graph, motif: effect)
    other = other.assign(source="published/haiku", prompt_id=np.repeat(np.array(prompts, dtype=object), 3))
    other = other.assign(model=None, seed=None, target=None, phase=None)
    return measured(summary, motifs=pd.concat([motifs_of(summary, 1), other]))


HAIKU = SETTINGS.model_copy(update={"published": "haiku"})


def test_two_published_graphs_are_described_and_not_tested():
    summary = summary_of(prompt_names(8), 0)
    table = published(with_published(summary, [None, "p01"]), PROMPTS, HAIKU)
    assert set(table["group_b"]) == {"distill/seed0", "base/seed0"} and set(table["verdict"]) == {NOT_TESTABLE}
    found = table[(table["measure"] == FFL) & (table["group_b"] == "base/seed0")].iloc[0]
    assert found["reason"] == "1 of 9 prompts have both; 6 are needed" and found["n"] == 1
    assert np.isfinite(found["value_a"]) and np.isfinite(found["value_b"]) and np.isnan(found["low"])


def test_published_graphs_of_other_prompts_have_values_of_their_own():
    summary = summary_of(prompt_names(8), 0)
    table = published(with_published(summary, [None, None], effect=2.0), PROMPTS, HAIKU)
    found = table[table["measure"] == FFL].iloc[0]
    assert found["value_a"] == pytest.approx(2.0, abs=0.3) and found["value_b"] == pytest.approx(0.0, abs=0.2)
    assert found["n"] == 0 and np.isnan(found["difference"])


def test_published_graphs_of_the_same_prompts_are_tested_beyond_seed_against_seed():
    summary = summary_of(prompt_names(15), 0)
    table = published(with_published(summary, prompt_names(15), effect=0.5), PROMPTS, HAIKU)
    found = table[table["measure"] == FFL]
    assert list(found["verdict"]) == [FOUND, FOUND] and set(found["null"]) == {"seed against seed"}
    depth = table[table["measure"] == "depth"].iloc[0]
    assert depth["verdict"] == NOT_TESTABLE and "0 prompts have a value" in depth["reason"]


def test_without_published_graphs_the_table_says_so():
    found = measured(summary_of(prompt_names(8), 0))
    assert set(published(found, PROMPTS, SETTINGS)["reason"]) == {
        "no published graphs were given (comparisons.published)"
    }
    assert "no motifs were counted" in published(found, PROMPTS, HAIKU)["reason"].iloc[0]


# ------------------------------------------------------------------------------------------------ false discoveries


EXHAUSTIVE = SETTINGS.model_copy(update={"permutations": 1023, "bootstrap": 100})  # all 2^10 relabellings


def test_the_table_holds_the_p_values_of_the_differences_between_couples():
    noise = measured_at_random(np.random.default_rng(7), 10, 12, ("think", "answer"), ("distill/seed0",))
    values = noise.values.to_numpy().reshape(10, 2, 12)
    expected = chance(values[:, 0] - values[:, 1], np.zeros((10, 12)), relabellings(10, 1023, 0))
    table = claims(think_answer(noise, PROMPTS, EXHAUSTIVE)).set_index("measure")
    assert table["p"][list(noise.values.columns)].to_numpy() == pytest.approx(expected)
    assert table["p_adjusted"][list(noise.values.columns)].to_numpy() == pytest.approx(adjusted(expected))


def test_where_there_is_nothing_to_find_a_study_in_twenty_finds_something_at_most():
    signs, p = relabellings(10, 1023, 0), []
    for number in range(400):
        rng = np.random.default_rng([11, number])
        shared, one, other = (rng.exponential(1, (10, n)) for n in (1, 12, 12))  # 12 measures of a prompt go together
        p.append(chance(shared * one - shared * other, np.zeros((10, 12)), signs))
    p = np.stack(p)
    found = np.array([(adjusted(row) <= 0.05).any() for row in p])
    # of 400 with probability .05 each: 30 or fewer with probability .99. Nor is the test blunt: single p are uniform
    assert found.sum() <= 30
    assert [(p <= level).mean() for level in (0.02, 0.05, 0.1)] == pytest.approx([0.02, 0.05, 0.1], abs=0.012)


def test_three_seeds_with_nothing_to_find_are_hardly_ever_told_apart():
    signs, p = relabellings(10, 1023, 0), []
    for number in range(200):
        reasoning, first, second = np.random.default_rng([12, number]).exponential(1, (3, 10, 12))
        p.append(chance(reasoning - first, second - first, signs))
    assert 0 < (np.stack(p) <= 0.1).mean() < 0.02


def test_all_four_tables_come_with_the_same_columns():
    found = measured(summary_of(prompt_names(8), 0))
    responses = pd.DataFrame({"model": "distill", "decoding": "sampled", "judged": True, "prompt_id": prompt_names(8)})
    tables = compare_graphs(found, PROMPTS, SETTINGS, responses)
    assert list(tables) == ["reasoning_base", "think_answer", "published", "correct_incorrect"]
    for name, table in tables.items():
        assert list(table.columns) == COLUMNS and set(table["comparison"]) == {name} and len(table)
        assert table["reason"].ne("").all() and table["verdict"].isin([FOUND, NOT_FOUND, NOT_TESTABLE]).all()
