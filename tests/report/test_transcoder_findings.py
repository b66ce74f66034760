"""Is no more said of transcoders than their tables allow?"""

from __future__ import annotations

import pandas as pd
import pytest
from made_up_transcoders import CHOICE, evaluation

from reasondiff.report.transcoder_findings import IDENTITY_IS_AT_FAULT, transcoder_findings


def found(study, make_tables, table: pd.DataFrame, **given):
    return transcoder_findings(study, make_tables(transcoders={("base", 0): table}, **given))


def test_nothing_is_said_of_a_study_without_transcoders(study, make_tables):
    assert transcoder_findings(study, make_tables()) == []


def test_the_floors_stand_beside_the_cost_of_all_layers(study, make_tables):
    finding, _ = found(study, make_tables, evaluation())
    assert "0.040 (0.036 to 0.044) in base, seed 0, less than the best linear maps cost" in finding.sentence
    assert "linear maps 0.400 (0.360 to 0.440), mean ablation 5.000 (4.500 to 5.500)" in finding.control
    assert "the MLPs' own output costs 0, as it must" in finding.control
    assert "40 problems, 9,000 next-token targets" in finding.sample


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.1, 0.3, "not distinguishable from what the best linear maps cost"),
        (-0.3, -0.1, "more than the best linear maps cost"),
        (0.1, 0.3, "less than the best linear maps cost"),
        (float("nan"), float("nan"), "not distinguishable from what the best linear maps cost"),
    ],
)
def test_transcoders_beat_linear_maps_only_where_the_interval_says_so(study, make_tables, low, high, expected):
    table = evaluation()
    wanted = (table["quantity"] == "ce_recovered_linear") & (table["layer"] == "all")
    table.loc[wanted, ["low", "high"]] = low, high
    assert f"base, seed 0, {expected}." in found(study, make_tables, table)[0].sentence


def test_linear_maps_that_cost_nothing_are_no_floor(study, make_tables):
    finding, _ = found(study, make_tables, evaluation(together={"linear": 0.001, "transcoder": -0.001}))
    assert "where linear maps cost next to nothing as well" in finding.sentence


@pytest.mark.parametrize("at", ["ce_increase_nats", "kl_nats", "top1_agreement"])
def test_an_identity_that_changes_anything_is_called_a_fault(study, make_tables, at):
    table = evaluation()
    wanted = (table["quantity"] == at) & (table["at"] == "identity") & (table["mask"] == "unmasked")
    table.loc[wanted, "value"] += 1e-9
    finding, _ = found(study, make_tables, table)
    assert IDENTITY_IS_AT_FAULT in finding.caution and "it must be 0 and 1" in finding.control


def test_an_identity_that_was_not_measured_is_not_called_zero(study, make_tables):
    table = evaluation()
    finding, _ = found(study, make_tables, table[table["at"] != "identity"])
    assert "not measured" in finding.control and finding.caution == ""


def test_layers_that_carry_nothing_are_named_and_not_counted(study, transcoded):
    _, finding = transcoder_findings(study, transcoded)
    # of the layers 0 (good), 1 (uninformative) and 2 (0.12 nats, worse than the linear map's 0.1)
    said = "distill, seed 0: 2 of 3 layers do (0 and 2); 1 of them passes. Uninformative: 1 (0.004 nats). "
    assert said + "Failing: 2 (ce_increase, recovered_linear)." in finding.sentence


def test_a_layer_without_a_figure_does_not_pass(study, make_tables):
    _, finding = found(study, make_tables, evaluation({0: {"transcoder": float("nan")}, 1: {}}))
    assert "2 of 2 layers do (0 and 1); 1 of them passes" in finding.sentence


def test_a_layer_without_a_linear_map_does_not_pass_and_one_with_a_cheap_map_may(study, make_tables):
    table = evaluation({0: {"linear": 0.011}, 1: {}})
    without = (table["layer"] == "1") & ((table["at"] == "linear") | (table["quantity"] == "ce_recovered_linear"))
    _, finding = found(study, make_tables, table[~without])
    assert "2 of 2 layers do (0 and 1); 1 of them passes" in finding.sentence


def test_a_point_that_did_not_qualify_is_a_caution(study, make_tables):
    choice = {**CHOICE, "point": "x4k4", "how": "best of the unqualified", "qualified": False}
    finding, _ = found(study, make_tables, evaluation(), choice=choice)
    assert "x4k4 did not qualify: layer 0: 20.0% of latents are dead" in finding.caution
    assert found(study, make_tables, evaluation(), choice=CHOICE)[0].caution == ""
