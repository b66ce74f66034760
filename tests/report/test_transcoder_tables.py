"""Are the wide tables of the transcoders what their long tables say?"""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_up_transcoders import answers, evaluation

from reasondiff.report import sites
from reasondiff.report.transcoder_tables import (
    FAITHFULNESS_COLUMNS,
    answer_changes,
    at_once,
    by_layer,
    by_replacement,
    faithfulness,
    is_informative,
    side_by_side,
    told,
)
from reasondiff.store import read_table, write_table

SET = "transcoders/{}/traces/{}/seed{}/x.tsv"


def of_sets(found: dict[tuple, pd.DataFrame]) -> pd.DataFrame:
    return sites.joined({SET.format(*of_set): table for of_set, table in found.items()}, sites.TRANSCODER_SET)


def one_set(table: pd.DataFrame, point: str = "x4k8") -> pd.DataFrame:
    return faithfulness(of_sets({("base", point, 0): table}))


def test_each_figure_is_taken_from_its_own_tokens_part_and_replacement():
    row = told(one_set(evaluation())).iloc[0]
    assert (row["fvu"], row["fvu_with_sinks"], row["fvu_family"], row["fvu_linear"]) == (0.1, 0.03, 0.12, 0.4)
    assert (row["ce_increase_transcoder"], row["ce_increase_mean_ablation"]) == (0.01, 1.0)
    assert row["recovered_mean"] == pytest.approx(0.99) and row["recovered_linear"] == pytest.approx(0.9)
    assert (row["ce_increase_transcoder_low"], row["ce_increase_transcoder_high"]) == pytest.approx((0.009, 0.011))
    assert (row["n_problems"], row["n_latents"], row["n_targets"]) == (40, 768, 9000)


def test_phases_have_rows_of_their_own():
    rows = told(one_set(evaluation()), ("think", "answer"))
    assert rows[["layer", "phase", "l0"]].values.tolist()[:2] == [["0", "think", 7.95], ["0", "answer", 7.5]]


def test_what_was_not_measured_is_missing_not_zero():
    rows = told(one_set(evaluation()))
    assert by_layer(rows)["ce_increase_identity"].isna().all(), "only all layers at once are replaced by themselves"
    assert at_once(rows)["fvu"].isna().all() and at_once(rows)["ce_increase_identity"].tolist() == [0]


def test_layers_are_ordered_by_number_and_all_of_them_come_last():
    table = evaluation({10: {}, 2: {}})
    assert told(one_set(table.sample(frac=1, random_state=0)))["layer"].tolist() == ["2", "10", "all"]


def test_a_figure_that_is_told_twice_is_refused():
    with pytest.raises(ValueError):
        one_set(pd.concat([evaluation(), evaluation()], ignore_index=True))


def test_no_sets_give_an_empty_table_with_its_columns(tmp_path):
    nothing = faithfulness(sites.joined({}, sites.TRANSCODER_SET))
    write_table(tmp_path / "x.tsv", nothing, {})
    assert told(read_table(tmp_path / "x.tsv")).empty and list(nothing.columns) == FAITHFULNESS_COLUMNS


def test_a_table_that_went_through_its_file_says_the_same(tmp_path):
    """Layers and points with names of digits come back from a file as numbers."""
    table = evaluation({0: {}, 3: {}})
    table = one_set(table[table["layer"] != "all"], point="8")
    write_table(tmp_path / "x.tsv", table, {})
    back = read_table(tmp_path / "x.tsv")
    assert back["layer"].dtype.kind == "i", "or the test shows nothing"
    pd.testing.assert_frame_equal(told(back), told(table), check_dtype=False)
    assert told(back)["place"].tolist() == ["base/traces/8/seed0/layer0", "base/traces/8/seed0/layer3"]


def test_every_replacement_has_a_row_beside_the_others():
    costs = by_replacement(at_once(told(one_set(evaluation()))))
    assert costs["at"].tolist() == ["transcoder", "linear", "mean_ablation", "zero_ablation", "identity"]
    assert costs["ce_increase"].tolist() == [0.04, 0.4, 5.0, 8.0, 0.0] and set(costs["n_problems"]) == {40}


def test_a_layer_of_unknown_ablation_cost_is_not_informative(study):
    limits = study.gates.transcoders
    assert is_informative(0.02, limits) and not is_informative(0.0199, limits)
    assert not is_informative(math.nan, limits)


# ------------------------------------------------------------------------------------------------ answers


def changes_of(own: list[bool], replaced: list[bool]) -> pd.Series:
    asked = of_sets({("base", "x4k8", 0): answers("base", own, replaced)})
    return answer_changes(asked, 500, 0, 6).iloc[0]


def test_answers_are_compared_problem_by_problem():
    # 10 problems: 6 solved both ways, 4 by the model's own MLPs alone
    row = changes_of([True] * 10, [True] * 6 + [False] * 4)
    assert (row["own"], row["transcoders"], row["lost"], row["gained"], row["n_problems"]) == (1.0, 0.6, 4, 0, 10)
    assert row["change"] == pytest.approx(-0.4) and row["high"] < 0


def test_answers_are_matched_by_problem_and_not_by_row():
    table = answers("base", [True, False] * 5, [True, False] * 5).sample(frac=1, random_state=1)
    row = answer_changes(of_sets({("base", "x4k8", 0): table}), 100, 0, 6).iloc[0]
    assert (row["lost"], row["gained"], row["change"]) == (0, 0, 0)


def test_few_problems_get_no_interval():
    assert math.isnan(changes_of([True] * 5, [False] * 5)["low"])


def test_no_responses_give_no_changes():
    nothing = sites.joined({}, sites.TRANSCODER_SET)
    assert answer_changes(nothing, 100, 0, 6).empty and side_by_side(nothing, 3).empty
    unasked = of_sets({("base", "x4k8", 0): answers("base", [], [])})
    assert answer_changes(unasked, 100, 0, 6).empty and side_by_side(unasked, 3).empty


def test_both_answers_to_a_problem_stand_beside_each_other():
    asked = [answers("base", [True] * 3, [False] * 3, way) for way in ("direct", "solution")]
    table = pd.concat(asked, ignore_index=True).sort_values("problem_index", ascending=False, kind="stable")
    shown = side_by_side(of_sets({("base", "x4k8", 0): table}), 2)
    assert shown["problem"].tolist() == ["0 plus 0?", "1 plus 1?"] and set(shown["elicitation"]) == {"solution"}
    assert shown["response_transcoders"].tolist() == ["<i>transcoders says 0</i>", "<i>transcoders says 1</i>"]
    assert shown["correct"].all() and not shown["correct_transcoders"].any()
