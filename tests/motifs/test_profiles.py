"""Is the effect of a motif a mean over prompts, and its p one that dependent graphs cannot inflate?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from made_up_motifs import MOTIFS, motifs_of, prompt_names, summary_of  # noqa: E402

from reasondiff.motifs.profiles import COLUMNS, joint_p, profiles  # noqa: E402

ONE = [("distill", 0)]
FFL = [("signed", "coherent_ffl")]


def tables(prompts, targets=("answer",), motifs=FFL, **how):
    return motifs_of(summary_of(prompt_names(prompts), 0, ONE, targets), 1, motifs, **how)


def graphs(p, log_ratio, weight=None):
    weight = np.full(len(p), 1 / len(p)) if weight is None else weight
    return pd.DataFrame({"p": p, "log_ratio": log_ratio, "weight": weight})


# ------------------------------------------------------------------------------------------------ effects


def test_the_effect_is_the_mean_over_prompts_of_the_mean_over_their_graphs():
    sizes = {("p00", "answer"): 1.0, ("p00", "correct"): 2.0, ("p00", "incorrect"): 6.0, ("p01", "answer"): 1.0}
    motifs = tables(2, ("answer", "correct", "incorrect"), effect=lambda g, m: 0.0)
    values = [sizes.get(key, np.nan) for key in zip(motifs["prompt_id"], motifs["target"], strict=True)]
    row = profiles(motifs.assign(log_ratio=values, delta=values), 100, 0).iloc[0]
    # p00: (1 + 2 + 6) / 3 = 3; p01: 1, its other graphs have no value
    assert (row["log_ratio"], row["delta"], row["prompts"], row["graphs"]) == (2.0, 2.0, 2, 4)
    assert np.isnan(row["low"]) and np.isnan(row["high"])  # too few prompts


def test_the_interval_is_over_prompts_not_over_graphs():
    motifs = tables(12, ("answer", "correct", "incorrect"), effect=lambda g, m: float(g["prompt_id"][1:]), spread=0.0)
    one = profiles(motifs[motifs["target"] == "answer"], 500, 0).iloc[0]
    three = profiles(motifs, 500, 0).iloc[0]
    assert (three["low"], three["high"]) == pytest.approx((one["low"], one["high"]))
    # the standard error of the mean of 0 .. 11 is 3.45 / sqrt(12) = 1.0
    assert 1.5 < (one["high"] - one["low"]) / 2 < 2.2 and one["graphs"] == 12 and three["graphs"] == 36


def test_sources_phases_nulls_and_thresholds_are_never_pooled():
    summary = summary_of(prompt_names(3), 0)
    parts = [motifs_of(summary, 1), motifs_of(summary, 1).assign(null="configuration")]
    parts.append(motifs_of(summary, 1, threshold=(0.6, 0.9)))
    found = profiles(pd.concat(parts), 100, 0)
    assert len(found) == 3 * 3 * 3 * len(MOTIFS) and set(found["graphs"]) == {3}
    assert list(found.columns) == COLUMNS


def test_graphs_from_elsewhere_without_model_phase_or_prompt_count_as_prompts_of_their_own():
    motifs = tables(7).assign(source="published/haiku", model=None, seed=None, phase=None, prompt_id=None)
    row = profiles(motifs, 100, 0).iloc[0]
    assert (row["source"], row["phase"], row["prompts"]) == ("published/haiku", "", 7) and np.isfinite(row["low"])


def test_what_says_how_well_a_null_mixed_is_kept():
    motifs = tables(3).assign(rank=[1, 2, 9], states=[10, 20, 60], mobility=[0.2, 0.4, 0.9])
    row = profiles(motifs, 100, 0).iloc[0]
    assert (row["rank"], row["states"], row["mobility"]) == (2, 20, pytest.approx(0.5))


def test_without_any_graph_there_is_an_empty_table():
    empty = profiles(tables(2).assign(log_ratio=np.nan), 100, 0)
    assert list(empty.columns) == COLUMNS and len(empty) == 0


# ------------------------------------------------------------------------------------------------ p-values


def test_the_joint_p_is_twice_the_median_in_the_direction_most_graphs_agree_in():
    assert joint_p(graphs([0.01, 0.02, 0.03, 0.5, 0.9], [1, 1, 1, 1, 1])) == pytest.approx(0.06)
    # with one of them the other way half of the weight is still reached at .03
    assert joint_p(graphs([0.01, 0.02, 0.03, 0.001], [1, 1, 1, -1])) == pytest.approx(0.04)
    assert joint_p(graphs([0.01, 0.02, 0.001, 0.001], [-1, -1, -1, -1])) == pytest.approx(0.002)
    assert joint_p(graphs([0.01, 0.01, 0.01, 0.01, 0.01], [1, 1, -1, -1, 0])) == 1.0  # no direction has half of them
    assert joint_p(graphs([0.01, np.nan, np.nan], [1, 1, 1])) == 1.0


def test_prompts_weigh_alike_however_many_graphs_they_have():
    weight = [0.5 / 3] * 3 + [0.5]
    assert joint_p(graphs([0.01, 0.01, 0.01, 0.9], [1] * 4, weight)) == pytest.approx(0.02)
    motifs = tables(3, ("answer", "correct", "incorrect")).assign(log_ratio=1.0, p=0.5)
    motifs.loc[motifs["prompt_id"] == "p00", "p"] = 0.01
    one_each = motifs[(motifs["prompt_id"] == "p00") | (motifs["target"] == "answer")]
    # three of five graphs have .01, but one of three prompts
    assert profiles(one_each, 100, 0).iloc[0]["p"] == 1.0


@pytest.mark.parametrize("dependence", ["none", "one graph in all prompts", "two kinds of prompts"])
def test_the_joint_p_holds_its_level_whatever_the_dependence_between_prompts(dependence):
    rng, prompts, found = np.random.default_rng(2), 12, []
    for _ in range(800):
        free = {"none": prompts, "one graph in all prompts": 1, "two kinds of prompts": 2}[dependence]
        one_sided = np.resize(rng.random(free), prompts)
        p, sign = 2 * np.minimum(one_sided, 1 - one_sided), np.where(one_sided < 0.5, 1.0, -1.0)
        found.append(joint_p(graphs(p, sign)))
    for level in (0.02, 0.05, 0.1):
        assert (np.array(found) <= level).mean() <= level + 3 * np.sqrt(level / 800)


def test_a_planted_motif_is_told_from_the_rest():
    motifs = tables(12, ("answer",), MOTIFS, effect=lambda g, motif: 0.5 * (motif == "coherent_ffl"))
    rng = np.random.default_rng(0)
    motifs["p"] = np.where(motifs["motif"] == "coherent_ffl", 0.01, rng.random(len(motifs)))
    found = profiles(motifs, 200, 0).set_index("motif")
    assert found["p_adjusted"]["coherent_ffl"] == pytest.approx(0.06) and found["low"]["coherent_ffl"] > 0.3
    assert (found["p_adjusted"].drop("coherent_ffl") > 0.5).all()


def test_a_rare_motif_that_its_null_explains_gets_no_small_p_though_its_log_ratio_is_below_zero():
    motifs = tables(24).assign(count=0, null_mean=0.05, log_ratio=np.log(0.5 / 0.55), p=1.0)
    row = profiles(motifs, 100, 0).iloc[0]
    assert row["high"] < 0 and row["p"] == 1.0


def test_the_correction_covers_phases_and_motifs_of_a_source_and_leaves_out_what_is_determined():
    several = [("triad", "030T"), ("triad", "021D"), ("typed", "a"), ("typed", "fixed")]
    motifs = tables(3, ("think", "answer"), several, effect=lambda g, m: 1.0)
    motifs["motif_is_determined"] = motifs["motif"] == "fixed"
    small = motifs["motif"].isin(["021D", "fixed"]) | ((motifs["motif"] == "a") & (motifs["phase"] == "think"))
    motifs["p"] = np.where(small, 0.01, 0.4)
    other = motifs.assign(source="base/seed0", model="base", p=0.001)
    found = profiles(pd.concat([motifs, other]), 100, 0)
    own = found[found["source"] == "distill/seed0"]
    assert own.loc[own["motif"].isin(["021D", "fixed"]), "p_adjusted"].isna().all()
    kept = own[own["motif"].isin(["030T", "a"])].set_index(["phase", "motif"])["p_adjusted"]
    # four tests in the family with joint p .02, .8, .8, .8
    assert kept["think", "a"] == pytest.approx(0.02 * 4) and kept["answer", "a"] == pytest.approx(0.8)


# ------------------------------------------------------------------------------------------------ thresholds


def test_a_sign_is_stable_when_every_threshold_shows_it():
    parts = []
    for threshold, ratio in (((0.8, 0.98), 0.5), ((0.6, 0.9), 0.1), ((0.9, 0.99), 0.3)):
        sizes = {"030T": ratio, "coherent_ffl": ratio - 0.2, MOTIFS[1][1]: ratio}
        parts.append(tables(2, ("answer",), MOTIFS, effect=lambda g, m, s=sizes: s[m], spread=0.0, threshold=threshold))
    parts[1] = parts[1][parts[1]["motif"] != MOTIFS[1][1]]  # lacks the typed triad
    parts.append(parts[0].assign(null="configuration"))  # at one threshold only
    found = profiles(pd.concat(parts), 100, 0)
    typed = found[found["null"] == "typed"].groupby("motif")["sign_stable"].agg(set)
    assert typed.to_dict() == {"030T": {True}, "coherent_ffl": {False}, MOTIFS[1][1]: {False}}
    assert found.loc[found["null"] == "configuration", "sign_stable"].isna().all()
