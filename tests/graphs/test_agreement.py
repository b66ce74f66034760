"""Do models change as their graphs say, and better than plain guesses say?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from reasondiff.graphs.agreement import (
    COLUMNS,
    FLOOR_LOGITS,
    MIN_PROMPTS,
    agreement,
    rank_correlation,
    read_interventions,
)
from reasondiff.store import ArtefactError, write_table

MEASURES = ("predicted_direct", "predicted_total", "baseline_norm", "baseline_logit", "frozen_change", "free_change")


def interventions(
    prompts=8, latents=12, seed=0, noise=0.0, slope=1.0, phase="answer", chosen="stratified", shuffled=False
):
    """Changes that are `slope` times the total prediction and noise; the other predictions know nothing of them."""
    rng = np.random.default_rng(seed)
    count = prompts * latents
    columns = {name: rng.normal(size=count) for name in MEASURES}
    columns["baseline_norm"] = np.abs(columns["baseline_norm"])
    columns["free_change"] = slope * columns["predicted_total"] + noise * rng.normal(size=count)
    columns["frozen_change"] = columns["free_change"].copy()
    if shuffled:
        columns["predicted_total"] = rng.permutation(columns["predicted_total"])
    units = np.repeat([f"p{number}" for number in range(prompts)], latents)
    places = {"model": "base", "seed": 0, "phase": phase, "chosen": chosen, "factor": 0, "target": phase}
    return pd.DataFrame({**places, "prompt_id": units, **columns})


def one(table, prediction="total", freezing="free", phase="all", factor=0, chosen="stratified"):
    found = agreement(table, 200, 0)
    wanted = {"prediction": prediction, "freezing": freezing, "phase": phase, "factor": factor, "chosen": chosen}
    for name, value in wanted.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def by_hand(predicted, measured, prompts=("a", "b")):
    """Three rows of two prompts with the same prediction in every column."""
    size = len(predicted)
    frame = interventions(prompts=1, latents=size)
    frame["prompt_id"] = np.resize(prompts, size)
    for name in MEASURES:
        frame[name] = np.array(measured if name.endswith("change") else predicted, dtype=np.float64)
    return frame


# ------------------------------------------------------------------------------------------------ figures


def test_slope_and_share_of_variance_are_those_of_the_line_through_the_origin():
    # x = 1, 2, -2 and y = 2, 2, 0: slope = (2 + 4 + 0) / (1 + 4 + 4) = 2/3
    # residuals 4/3, 2/3, 4/3: squares sum to 36/9 = 4; about their mean 4/3 the changes have 4/9 + 4/9 + 16/9 = 24/9
    found = one(by_hand([1, 2, -2], [2, 2, 0]))
    assert found["slope"] == pytest.approx(2 / 3)
    assert found["r2"] == pytest.approx(1 - 4 / (24 / 9))
    # the first two go the predicted way; the third does not move
    assert found["sign_agreement"] == pytest.approx(2 / 3)


def test_changes_predicted_to_be_under_the_floor_count_in_no_sign_agreement():
    found = one(by_hand([1, -1, FLOOR_LOGITS, -FLOOR_LOGITS / 2], [1, 1, -1, 1]))
    assert found["sign_agreement"] == 0.5  # of the first two one agrees
    assert np.isnan(one(by_hand([0, FLOOR_LOGITS], [1, 1]))["sign_agreement"])


def test_a_prediction_without_a_sign_is_held_against_the_size_of_the_change():
    found = one(by_hand([1, 2, 3], [-2, 4, -6]), "baseline_norm")
    assert found["slope"] == pytest.approx(2) and found["r2"] == pytest.approx(1)
    assert found["spearman"] == pytest.approx(1)
    assert np.isnan([found["sign_agreement"], found["sign_low"], found["sign_high"]]).all()
    assert one(by_hand([1, 2, 3], [-2, 4, -6]), "baseline_logit")["slope"] == pytest.approx(-12 / 14)


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 50).astype(float), rng.normal(size=50)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert np.isnan(rank_correlation(np.ones(4), second[:4]))


# ------------------------------------------------------------------------------------------------ planted


def test_a_prediction_that_is_right_has_slope_one_and_every_sign():
    found = one(interventions())
    assert (found["slope"], found["r2"], found["sign_agreement"], found["spearman"]) == pytest.approx((1, 1, 1, 1))
    assert found["slope_low"] == pytest.approx(1) and found["r2_high"] == pytest.approx(1)


def test_a_shuffled_prediction_says_nothing():
    found = one(interventions(prompts=40, shuffled=True))
    assert found["slope_low"] < 0 < found["slope_high"] and abs(found["slope"]) < 0.15
    assert found["sign_low"] < 0.5 < found["sign_high"] and found["sign_agreement"] == pytest.approx(0.5, abs=0.1)
    assert found["r2"] == pytest.approx(0, abs=0.05) and abs(found["spearman"]) < 0.15


def test_changes_half_as_large_as_predicted_have_slope_one_half():
    found = one(interventions(slope=0.5, noise=0.2))
    assert found["slope_low"] < 0.5 < found["slope_high"]
    # 0.25 of variance explained, 0.04 not
    assert found["r2"] == pytest.approx(0.25 / 0.29, abs=0.05)


def test_intervals_are_over_prompts_and_not_over_latents():
    """All latents of a prompt share its slope, which differs between prompts: more latents make nothing surer."""
    widths = []
    for latents in (10, 1000):
        table = interventions(prompts=10, latents=latents)
        own = dict(zip(sorted(set(table["prompt_id"])), np.linspace(0, 2, 10), strict=True))
        table["free_change"] = table["predicted_total"] * table["prompt_id"].map(own)
        found = one(table)
        widths.append(found["slope_high"] - found["slope_low"])
    # the mean of 10 slopes with sd 0.64: 2 * 1.96 * 0.64 / sqrt(10) = 0.79
    assert widths[1] == pytest.approx(0.79, abs=0.1) and widths[0] > 0.6


# ------------------------------------------------------------------------------------------------ which rows


def test_a_row_for_each_phase_and_all_together_kind_prediction_freezing_and_factor():
    parts = [
        interventions(phase=phase, chosen=chosen, seed=1)
        for phase in ("answer", "think")
        for chosen in ("stratified", "matched")
    ]
    table = pd.concat([*parts, *(part.assign(factor=2) for part in parts)], ignore_index=True)
    found = agreement(table, 100, 0)
    assert list(found) == COLUMNS
    assert len(found) == 3 * 2 * 4 * 2 * 2
    keys = ["phase", "chosen", "prediction", "freezing", "factor"]
    assert not found.duplicated(keys).any()
    assert found["phase"].iloc[0] == "all"
    sizes = found.groupby("phase")["latents"].unique().map(list).to_dict()
    assert sizes == {"all": [192], "answer": [96], "think": [96]}
    assert set(found["prompts"]) == {8}


def test_subjects_are_not_mixed():
    other = interventions(seed=1, slope=-1.0).assign(seed=1)
    found = agreement(pd.concat([interventions(), other], ignore_index=True), 100, 0)
    total = found[(found["prediction"] == "total") & (found["phase"] == "all") & (found["freezing"] == "free")]
    assert total.set_index("seed")["slope"].to_dict() == pytest.approx({0: 1.0, 1: -1.0})


def test_frozen_and_free_changes_are_judged_apart():
    table = interventions()
    table["frozen_change"] *= -3
    assert one(table, freezing="frozen")["slope"] == pytest.approx(-3)
    assert one(table, freezing="free")["slope"] == pytest.approx(1)


def test_with_few_prompts_nothing_is_testable():
    few, enough = one(interventions(prompts=MIN_PROMPTS - 1)), one(interventions(prompts=MIN_PROMPTS))
    assert few["reason"] == "not testable: 5 prompts, 6 are needed" and enough["reason"] == ""
    bounds = ["slope_low", "slope_high", "r2_low", "r2_high", "sign_low", "sign_high"]
    assert few[bounds].isna().all() and enough[bounds].notna().all()
    assert few["slope"] == pytest.approx(1)


def test_no_intervention_gives_a_table_without_rows():
    found = agreement(interventions(prompts=0), 100, 0)
    assert len(found) == 0 and list(found) == COLUMNS


def test_a_change_that_is_not_finite_is_refused():
    table = interventions()
    table.loc[3, "free_change"] = np.nan
    with pytest.raises(ValueError, match="1 of free_change are not, first .*'prompt_id': 'p0'"):
        agreement(table, 100, 0)


# ------------------------------------------------------------------------------------------------ files


def test_a_files_card_says_what_it_is_of(tmp_path):
    rows = interventions(prompts=1).drop(columns=["model", "seed", "prompt_id", "target", "phase"])
    origins = [
        ("base", 1, "sum", "own", "answer"),
        ("distill", 0, "sum", "think", "think"),
        ("base", 0, "empty", "prompt", "prompt"),
    ]
    paths = [tmp_path / str(number) / "interventions.tsv" for number in range(3)]
    for path, (model, seed, *of), table in zip(paths, origins, (rows, rows, rows[:0]), strict=True):
        of = dict(zip(("prompt_id", "target", "phase"), of, strict=True), model="distill")
        write_table(path, table, {"model": [model, "digest"], "seed": seed, "of": of})
    found = read_interventions(paths)
    assert len(found) == 2 * len(rows)
    names = ["model", "seed", "prompt_id", "target", "phase"]
    assert set(found[names].itertuples(index=False, name=None)) == set(origins[:2])
    assert found["free_change"].dtype == np.float64
    assert len(agreement(read_interventions(paths[2:]), 100, 0)) == 0
    assert len(agreement(read_interventions([]), 100, 0)) == 0


def test_a_file_whose_card_does_not_say_so_is_refused(tmp_path):
    path = tmp_path / "interventions.tsv"
    write_table(path, interventions(prompts=1), {"model": ["base", "digest"], "seed": 0})
    with pytest.raises(ArtefactError, match=r"which model, seed and target it is of \(no 'of'\)"):
        read_interventions([path])
