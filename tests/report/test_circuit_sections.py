"""Does the page say of graphs and motifs what their tables say, with sample and null, and nothing beyond?"""

from __future__ import annotations

import re

import pandas as pd
import pytest
from made_up_circuits import COLUMNS, accuracy, agreement, circuits, compared, graph, profile, split_row
from pages import page_of, words_of

from reasondiff.report.all_figures import draw
from reasondiff.report.circuit_captions import circuit_captions
from reasondiff.report.circuit_findings import circuit_findings, sentence_of
from reasondiff.report.circuit_sections import circuits as sections
from reasondiff.report.circuit_tables import (
    by_target,
    counts,
    figures_of_circuits,
    headline_profiles,
    of_comparison,
    shown_motifs,
    with_costs,
)
from reasondiff.report.drawing import styled, to_bytes


@pytest.fixture(scope="module")
def made(make_tables):
    return make_tables(circuits=circuits())


def words(study, tables) -> str:
    return words_of(*sections(study, tables, {}))


def findings(study, tables) -> dict[str, object]:
    return {one.about: one for one in circuit_findings(study, tables)}


# ------------------------------------------------------------------------------------------------ tables


def test_graphs_that_were_not_made_count_as_asked_and_not_as_made(made):
    row = by_target(made.graph_summary).iloc[0]
    assert (row["asked"], row["graphs"], row["explaining"], row["failed"]) == (9, 7, 6, 1)


def test_medians_are_those_of_the_graphs_that_were_made():
    rows = [graph(f"p{number}", feature_share=share) for number, share in enumerate((0.2, 0.3, 0.9))]
    assert by_target(pd.DataFrame(rows))["feature_share"].tolist() == [pytest.approx(0.3)]


def test_each_graph_has_its_own_cost_and_none_if_it_is_not_known(made):
    rows = with_costs(made.graph_summary, made.graph_costs).set_index("prompt_id")
    assert rows.loc["p3", "seconds"] == pytest.approx(3.37) and rows.loc["p3", "peak_memory_gib"] == 0.58
    assert len(rows) == 9 and pd.isna(rows.loc["p8", "seconds"])


def test_targets_stand_in_the_order_in_which_they_are_said():
    rows = [graph("p", target) for target in ("own", "answer", "think", "prompt")]
    assert by_target(pd.DataFrame(rows))["target"].tolist() == ["prompt", "think", "answer", "own"]


def test_other_nulls_and_thresholds_are_not_reported_as_the_headline(study):
    rows = [profile("a", 0.5), profile("b", 0.5, null="layer_pair_config"), profile("c", 0.5, node_share=0.7)]
    rows.append(profile("fixed by the null", 0.5, p_adjusted=float("nan")))
    assert headline_profiles(pd.DataFrame(rows), study.motifs)["motif"].tolist() == ["a"]


def test_motifs_are_ranked_by_their_effect_in_half_widths_of_the_interval():
    wide = profile("wide", 0.9, low=-0.1, high=1.9)  # 0.9 half widths
    rows = pd.DataFrame([wide, profile("narrow", -0.5), profile("none", 0.0), profile("few", 3.0, low=float("nan"))])
    assert shown_motifs(rows) == ["narrow", "wide", "none"]


def test_rows_on_how_groups_match_are_no_tests():
    rows = pd.DataFrame([
        compared("think_answer", "depth", 0.3, "found"),
        compared("think_answer", "tokens", 0.3, "found", measure_family="match"),
    ])  # fmt: skip
    assert counts(rows) == {"found": 1, "not found": 0, "not testable": 0}


@pytest.mark.parametrize("table", COLUMNS)
def test_the_page_reads_columns_that_the_stages_write(table):
    assert set(circuits()[table].columns) <= set(COLUMNS[table])


# ------------------------------------------------------------------------------------------------ sentences


def test_a_finding_names_measure_interval_sample_adjusted_p_and_null(study, made):
    said = sentence_of("reasoning_base", of_comparison(made.comparisons, "reasoning_base"), study)
    assert said.startswith("1 of 2 measures differ beyond their null: depth +0.30 (0.20 to 0.40; n = 20")
    assert "adjusted p = 0.012; null 0.03" in said


def test_what_the_null_reproduces_is_said_not_to_be_found(study, made):
    said = sentence_of("think_answer", of_comparison(made.comparisons, "think_answer"), study)
    assert said == "Not found: none of 1 measures differs beyond its null (smallest adjusted p 0.4)."


@pytest.mark.parametrize("name,reason", [("published", "no folder was given"), ("correct_incorrect", "4 prompts")])
def test_what_cannot_be_tested_says_why(name, reason, study, made):
    said = sentence_of(name, of_comparison(made.comparisons, name), study)
    assert said.startswith("Not testable: ") and reason in said and "found" not in said.lower()


def test_there_is_a_finding_for_each_comparison_and_each_has_a_sample(study, made):
    found = findings(study, made)
    assert len([about for about in found if about.startswith("Circuits: ")]) == 4
    assert all(re.search(r"\d", one.sample) for one in found.values())


def test_the_gate_on_graphs_counts_those_that_pass_of_those_made(study, made):
    one = findings(study, made)["Attribution graphs: do they explain?"]
    assert one.sentence.startswith("6 of 7 graphs pass the gate") and "2 were not made" in one.sample


def test_interventions_stand_beside_what_needs_no_graph(study, made):
    one = findings(study, made)["distill, seed 0: does the model change as its graphs predict?"]
    assert "0.93 (0.90 to 0.96) of cases with attention" in one.sentence and "240 latents of 20 prompts" in one.sample
    assert "free: direct edge alone: R² 0.75" in one.control and "frozen: activation × norm" in one.control


def test_doubled_latents_do_not_enter_the_headline(study, make_tables):
    rows = pd.DataFrame([agreement("total", freezing=one, factor=2) for one in ("frozen", "free")])
    tables = make_tables(circuits={**circuits(), "graph_interventions": rows})
    assert not [about for about in findings(study, tables) if "predict" in about]


# ------------------------------------------------------------------------------------------------ the page


def test_missing_graphs_are_named_with_their_reasons(study, made):
    said = words(study, made)
    assert "2 of 9 graphs were not made (1 failed; the next run tries those again)" in said
    assert "the response has no box" in said and "MemoryError: too large" in said


def test_a_refused_graph_says_which_gate_refuses_it(study, made):
    assert "feature share 0.2 is under 0.5" in words(study, made)


def test_the_rule_for_choosing_tokens_is_on_the_page(study, made):
    said = words(study, made)
    assert "about as uncertain as at its answer" in said and "the content of the last box" in said


def test_accuracy_has_interval_and_sample(study, made):
    assert "60 % (50 to 70) 20 18 1" in words(study, made)


def test_prompts_that_nobody_judges_have_no_accuracy(study, make_tables):
    row = {**accuracy("distill", "all", 0.5), "judged": 0, "accuracy": float("nan")}
    tables = make_tables(circuits={**circuits(), "prompt_accuracy": pd.DataFrame([row])})
    assert "not judged" in words(study, tables)


def test_the_null_of_the_split_has_no_verdict(study, make_tables):
    nothing = dict.fromkeys(["null_value", "difference", "p_adjusted", "verdict", "reason"], float("nan"))
    rows = [split_row("wiring", 0.3, first="base/seed1", second="base/seed0", **nothing)]
    said = words(study, make_tables(circuits={**circuits(), "split": pd.DataFrame(rows)}))
    assert "base/seed1 − base/seed0 matched all wiring 0.30 (0.20 to 0.40) – – 20 – the null" in said
    assert "nan" not in said


def test_motifs_are_said_to_be_found_by_their_adjusted_p_alone(study, make_tables):
    rows = [profile("a", 0.5, p_adjusted=0.04), profile("b", -0.9, p_adjusted=0.06)]
    said = words(study, make_tables(circuits={**circuits(), "motif_profiles": pd.DataFrame(rows)}))
    assert "1 of 2 effects (1 sources, 2 motifs, by phase) are beyond their null at an adjusted p of 0.05" in said
    said = words(study, make_tables(circuits={**circuits(), "motif_profiles": pd.DataFrame(rows[1:])}))
    assert "Not found: none of 1 effects" in said and "(smallest 0.06)" in said


def test_usage_and_wiring_are_on_the_page(study, made):
    said = words(study, made)
    assert "distill/seed0 − base/seed1 matched all wiring 0.30 (0.20 to 0.40) 0.20 (0.10 to 0.30) 0.10 (−0.10" in said


def test_a_study_whose_stages_found_nothing_says_so(study, make_tables):
    said = words(study, make_tables())
    for sentence in ("No prompt was answered", "No graph was made", "No intervention", "No motif was counted"):
        assert sentence in said or sentence == "No intervention"
    assert said.count("Not testable") == 4


def test_a_study_without_circuits_has_no_section_on_them(study, make_tables):
    without = study.model_copy(update=dict.fromkeys(("prompts", "graphs", "motifs", "comparisons")))
    assert sections(without, make_tables(study=without), {}) == [] and circuit_findings(without, make_tables()) == []


def test_tokens_are_text_and_never_markup(study, make_tables):
    rows = pd.DataFrame([graph("p0", target_token="<script>alert(1)</script>")])
    page = page_of(study, make_tables(circuits={**circuits(), "graph_summary": rows}))
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


# ------------------------------------------------------------------------------------------------ figures

FIGURES = figures_of_circuits(True, True, True)


def drawn(name: str, study, tables) -> str:
    with styled(name):
        return to_bytes(draw(*FIGURES[name], study, tables), "svg").decode()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_the_same_bytes_each_time_and_have_a_caption(name, study, made):
    assert drawn(name, study, made) == drawn(name, study, made)
    assert re.search(r"n = \d|Not testable", circuit_captions(study, made)[name])


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_nothing_say_why(name, study, make_tables):
    svg = drawn(name, study, make_tables())
    assert "no " in svg or "not testable" in svg or "nothing" in svg


def test_the_figure_of_a_comparison_shows_its_null(study, made):
    assert "null" in drawn("comparison_reasoning_base", study, made)


def test_a_study_without_graphs_asks_for_no_figure_of_them():
    assert figures_of_circuits(False, False, False) == {}
