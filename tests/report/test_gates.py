"""Do the gates say pass, fail or not testable for the right reasons?"""

from __future__ import annotations

import pandas as pd
import pytest
from made_up import baselines, evaluation

from reasondiff.report.gates import judge_gates
from reasondiff.report.judging import FAIL, NOT_TESTABLE, PASS, judge

MODELS = ["base", "distill"]


def verdict(tables, gate: str) -> str:
    gates = tables.summaries["gates"]
    return gates.loc[gates["gate"] == gate, "verdict"].iloc[0]


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [
        (0.8, "at least", PASS),
        (0.79, "at least", FAIL),
        (0.1, "at most", PASS),
        (0.81, "at most", FAIL),
        (0.8, "more than", FAIL),
    ],
)
def test_a_threshold_belongs_to_the_side_that_passes(value, rule, expected):
    assert judge(value, 0.8, rule) == expected


def test_a_missing_value_is_not_testable():
    assert judge(float("nan"), 0.8, "at least") == NOT_TESTABLE


def test_good_and_bad_dictionaries_are_told_apart(whole):
    assert verdict(whole, "fve") == PASS and verdict(whole, "spliced_kl_recovered") == PASS
    assert verdict(whole, "dense_share") == FAIL, "20 % of the latents fire on over 10 % of tokens"


def test_a_dictionary_is_as_good_as_for_its_worse_model(make_tables):
    table = pd.concat([evaluation(["base"], 0.95), evaluation(["distill"], 0.5).iloc[3:]], ignore_index=True)
    gates = make_tables(evaluations={"base-distill": table}).summaries["gates"].set_index("gate")
    assert gates.loc["fve", "verdict"] == FAIL and gates.loc["fve", "model"] == "distill"


def test_a_model_without_a_figure_makes_the_gate_not_testable(make_tables):
    table = evaluation(MODELS)
    table.loc[(table["quantity"] == "kl_recovered") & (table["model"] == "base"), "value"] = float("nan")
    tables = make_tables(evaluations={"base-distill": table}, baselines={"base-distill": baselines(MODELS)})
    assert verdict(tables, "spliced_kl_recovered") == NOT_TESTABLE


def test_a_site_that_costs_nothing_to_ablate_cannot_show_recovery(make_tables):
    weak = baselines(MODELS, ablation=0.002)
    tables = make_tables(evaluations={"base-distill": evaluation(MODELS)}, baselines={"base-distill": weak})
    assert verdict(tables, "spliced_kl_recovered") == NOT_TESTABLE


def test_dictionaries_of_one_model_are_baselines_and_pass_no_gate(make_tables):
    gates = make_tables(evaluations={"base-distill": evaluation(["base"])}).summaries["gates"]
    assert set(gates["gate"]) == {"nats_per_byte_gap"}


def check(model: str, tokenizer: str, nats: float, readable: bool = True) -> dict:
    row = {"text": "traces", "model": model, "tokenizer": tokenizer, "dtype": "float32", "readable": readable}
    return {**row, "nats_per_byte": nats, "n_problems": 20}


def test_one_tokenizer_has_nothing_to_be_compared_with(make_tables):
    checks = pd.DataFrame([check(model, "tiny", 1.0) for model in MODELS])
    assert verdict(make_tables(checks=checks), "nats_per_byte_gap") == NOT_TESTABLE


def test_a_model_that_reads_better_under_its_own_tokenizer_fails_the_gate(make_tables):
    rows = [
        check("base", "tiny", 1.2),
        check("base", "own", 1.0),
        check("distill", "tiny", 1.0),
        check("distill", "own", 1.1),
    ]
    gates = make_tables(checks=pd.DataFrame(rows)).summaries["gates"].set_index("of")
    row = gates.loc["base-distill/traces"]
    assert row["verdict"] == FAIL and row["model"] == "base" and row["value"] == pytest.approx(0.2)


def test_the_foreign_share_is_judged_per_pair(study, make_tables):
    report = {"pair": "base-distill", "text": "traces", "foreign_share": 0.2, "tokens": 1000}
    tables = make_tables()
    of_dictionaries, of_transcoders = tables.summaries["quality"], tables.summaries["transcoders"]
    gates = judge_gates(of_dictionaries, tables.checks, [report], of_transcoders, study.pairs, study.gates, "real")
    assert gates.iloc[0]["verdict"] == FAIL and set(gates["scale"]) == {"real"}
