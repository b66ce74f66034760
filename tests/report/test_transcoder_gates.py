"""Is a transcoder judged by what it gives back, and not by what was never there?"""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_up_transcoders import evaluation

from reasondiff.report.judging import FAIL, NOT_TESTABLE, PASS
from reasondiff.report.transcoder_gates import LAYER_GATES, QUESTIONS, SET_GATES


@pytest.fixture
def judged(make_tables):
    """`judged(table, layer)`: rows of a set's gates by name, for one layer or `all`."""

    def judge(table: pd.DataFrame, layer: str = "layer0") -> pd.DataFrame:
        gates = make_tables(transcoders={("base", 0): table}).summaries["gates"]
        return gates[gates["of"] == f"base/traces/x4k8/seed0/{layer}"].set_index("gate")

    return judge


def verdicts(rows: pd.DataFrame) -> dict[str, str]:
    return rows["verdict"].to_dict()


def test_a_good_layer_passes_every_gate(judged):
    assert verdicts(judged(evaluation())) == dict.fromkeys(LAYER_GATES, PASS)
    assert verdicts(judged(evaluation(), "all")) == dict.fromkeys(SET_GATES, PASS)


def test_a_study_without_transcoders_has_no_gate_of_them(make_tables):
    assert not set(make_tables().summaries["gates"]["gate"]) & set(QUESTIONS)


@pytest.mark.parametrize(("nats", "expected"), [(0.1, PASS), (0.1001, FAIL), (-0.01, PASS), (math.nan, NOT_TESTABLE)])
def test_the_loss_of_a_layer_is_judged_in_nats(judged, nats, expected):
    assert judged(evaluation({0: {"transcoder": nats}})).loc["transcoder_ce_increase", "verdict"] == expected


def test_a_small_loss_of_a_layer_that_costs_nothing_is_no_merit(judged):
    """The published study counted these: zeroing such a layer costs as little as its transcoder."""
    table = evaluation({0: {"transcoder": 0.001, "mean_ablation": 0.002, "linear": 0.001}})
    rows = judged(table)
    assert rows.loc["transcoder_ce_increase", "verdict"] == PASS
    for gate in ("transcoder_recovered_mean", "transcoder_recovered_linear"):
        assert rows.loc[gate, "verdict"] == NOT_TESTABLE
        assert rows.loc[gate, "remark"] == "uninformative: ablating costs 0.002 nats"


@pytest.mark.parametrize("transcoder", [-0.5, 0.0, 0.5])
def test_an_uninformative_layer_never_passes_by_what_it_recovers(judged, transcoder):
    rows = judged(evaluation({0: {"transcoder": transcoder, "mean_ablation": 0.0199}}))
    assert rows.loc["transcoder_recovered_mean", "verdict"] == NOT_TESTABLE


def test_a_linear_map_that_costs_nothing_cannot_be_beaten(judged):
    rows = judged(evaluation({0: {"linear": 0.01, "transcoder": 0.001}}))
    assert rows.loc["transcoder_recovered_mean", "verdict"] == PASS
    assert rows.loc["transcoder_recovered_linear", "verdict"] == NOT_TESTABLE
    assert rows.loc["transcoder_recovered_linear", "remark"] == "the linear map costs 0.01 nats"


def test_without_an_ablation_cost_nothing_is_recovered(judged):
    table = evaluation()
    rows = judged(table[(table["at"] != "mean_ablation")])
    assert rows.loc["transcoder_recovered_mean", "verdict"] == NOT_TESTABLE
    assert rows.loc["transcoder_recovered_mean", "remark"] == "uninformative: what ablating costs is not known"


def test_a_transcoder_no_better_than_a_linear_map_fails(judged):
    rows = judged(evaluation({0: {"transcoder": 0.08, "linear": 0.1}}))
    assert rows.loc["transcoder_recovered_mean", "verdict"] == PASS, "0.92 of the ablation cost"
    assert rows.loc["transcoder_recovered_linear", "verdict"] == FAIL, "0.2 of the linear map's"


def test_dead_and_dense_latents_are_counted_per_layer(judged):
    rows = judged(evaluation(dead_share=0.11, dense_share=0.02))
    assert rows.loc[["transcoder_dead", "transcoder_dense"], "verdict"].tolist() == [FAIL, FAIL]
    assert rows.loc["transcoder_dead", ["n", "n_unit"]].tolist() == [768, "latents"]


def test_all_layers_at_once_have_their_own_limit(judged):
    assert judged(evaluation(together={"transcoder": 0.51}), "all").loc["transcoder_all_layers", "verdict"] == FAIL


def test_agreement_must_exceed_that_of_linear_maps_by_its_interval(judged):
    """The lower end is judged; without an interval there is no verdict."""
    table = evaluation()
    excess = (table["quantity"] == "top1_excess") & (table["layer"] == "all")
    for low, expected in [(0.001, PASS), (0.0, FAIL), (-0.01, FAIL), (math.nan, NOT_TESTABLE)]:
        table.loc[excess, "low"] = low
        assert judged(table, "all").loc["transcoder_top1_excess", "verdict"] == expected


def test_too_few_problems_fail(judged):
    table = evaluation().assign(n=lambda rows: rows["n"].where(rows["n_unit"] != "problems", 5))
    row = judged(table, "all").loc["transcoder_min_problems"]
    assert (row["verdict"], row["value"]) == (FAIL, 5)
