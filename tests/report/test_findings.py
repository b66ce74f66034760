"""Does the page claim only what the tables allow?"""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from made_up import accuracies, divergence, evaluation, latents, responses

from reasondiff.report.findings import accuracy, all_findings, distance
from reasondiff.report.latent_findings import FORMAT_EXPLAINS, NO_FORMAT_CONTROL, exclusive_latents
from reasondiff.report.wording import NULL


def of_pair(study, tables, name="base-distill"):
    return exclusive_latents(name, study.pairs[name], study, tables)


def test_an_excess_over_the_control_is_said_and_its_nature_left_open(study, whole):
    (finding,) = of_pair(study, whole)
    assert "30 distill only (more than the null)" in finding.sentence
    assert finding.caution == NO_FORMAT_CONTROL
    assert "1 of 100" in [cell.text for row in finding.table.rows for cell in row][3]


@pytest.fixture
def with_format(study):
    """The study with a distillation on shuffled reasoning as a further null."""
    shuffled = study.models["distill"].model_copy(update={"format_only": True})
    control = study.pairs["base-base_continued"].model_copy(update={"models": ("base", "format_only")})
    own = study.pairs["base-distill"].model_copy(update={"nulls": {"format": "base-format_only"}})
    pairs = {**study.pairs, "base-format_only": control, "base-distill": own}
    return study.model_copy(update={"models": {**study.models, "format_only": shuffled}, "pairs": pairs})


@pytest.mark.parametrize(
    ("in_format", "said", "caution"),
    [(1, "distill only more than the null", ""), (30, f"distill only {NULL}", FORMAT_EXPLAINS)],
)
def test_latents_of_the_format_alone_are_told_from_the_others(with_format, make_tables, in_format, said, caution):
    found = {
        "base-distill": latents(30, 70), "base-base_continued": latents(1, 99),
        "base-format_only": latents(in_format, 100 - in_format),
    }  # fmt: skip
    (finding,) = of_pair(with_format, make_tables(with_format, latents=found))
    assert f"Against the null “format” (base-format_only): btk24, seed 0, {said}" in finding.sentence
    assert finding.caution == caution
    assert [column for column in finding.table.columns if "over “format”" in column.title]


def test_a_format_control_that_has_not_run_is_not_taken_for_one_that_has(with_format, make_tables):
    found = {"base-distill": latents(30, 70), "base-base_continued": latents(1, 99)}
    (finding,) = of_pair(with_format, make_tables(with_format, latents=found))
    assert finding.caution == NO_FORMAT_CONTROL
    assert "(base-format_only), btk24, seed 0: not testable: the null pair has no dictionary" in finding.sentence


def test_the_sparsity_and_the_failed_gates_of_a_dictionary_stand_beside_its_counts(study, whole):
    (finding,) = of_pair(study, whole)
    assert [cell.text for cell in finding.table.rows[0]][-2:] == ["23", "dense"]


def test_points_of_different_sparsity_are_not_compared(study, whole):
    counts = whole.summaries["counts"]
    other = whole.summaries["fidelity"].assign(point="l1", l0=60.0)
    summaries = {
        **whole.summaries,
        "counts": pd.concat([counts, counts.assign(point="l1")], ignore_index=True),
        "fidelity": pd.concat([whole.summaries["fidelity"], other], ignore_index=True),
    }
    (finding,) = of_pair(study, dataclasses.replace(whole, summaries=summaries))
    assert "differ in L0 (btk24 23 and l1 60)" in finding.sentence


def test_the_control_model_stands_beside_levels_of_accuracy(study, make_tables):
    levels = {"base": 0.6, "distill": 0.8, "base_continued": 0.9}
    table = pd.concat([accuracies(model, "direct", share) for model, share in levels.items()], ignore_index=True)
    (finding,) = accuracy("base-distill", study.pairs["base-distill"], study, make_tables(accuracy=table))
    assert "distill asked with “direct” 80.0 %" in finding.sentence
    assert "base_continued asked with “direct” 90.0 %" in finding.control


def test_an_excess_whose_interval_holds_0_is_not_distinguishable_from_the_null(study, make_tables):
    tables = make_tables(latents={"base-distill": latents(2, 98), "base-base_continued": latents(1, 99)})
    (finding,) = of_pair(study, tables)
    assert NULL in finding.sentence and "more than the null" not in finding.sentence


def test_fewer_exclusive_latents_than_in_the_control_are_said_to_be_fewer(study, make_tables):
    tables = make_tables(latents={"base-distill": latents(1, 99), "base-base_continued": latents(30, 70)})
    (finding,) = of_pair(study, tables)
    assert "1 distill only (fewer than the null)" in finding.sentence and finding.caution == ""


def test_without_a_control_dictionary_nothing_is_compared(study, make_tables):
    (finding,) = of_pair(study, make_tables(latents={"base-distill": latents(30, 70)}))
    assert "no control to compare with" in finding.sentence and "more than" not in finding.sentence


def test_with_no_exclusive_latent_the_leaning_ones_are_told(study, make_tables):
    leaning = latents(5, 95).assign(tag="other", delta=0.2)
    (finding,) = of_pair(study, make_tables(latents={"base-distill": leaning, "base-base_continued": latents(0, 100)}))
    assert "none passes; 100 leaning to distill" in finding.sentence


def test_a_change_of_accuracy_is_claimed_only_where_the_interval_excludes_0(study, make_tables):
    def said(after: list[bool]) -> str:
        asked = pd.concat([responses("distill", [True, False] * 10), responses("rl", after)], ignore_index=True)
        return accuracy("distill-rl", study.pairs["distill-rl"], study, make_tables(responses=asked))[0].sentence

    assert "+50.0 points" in said([True] * 20) and "; up)" in said([True] * 20)
    assert "no change that the interval allows to claim" in said([False] + [True, False] * 9 + [True])


@pytest.mark.parametrize(("value", "expected"), [(0.9, "farther than"), (0.1, "not as far as"), (0.52, NULL)])
def test_a_distance_is_set_against_its_control(study, make_tables, value, expected):
    rows = [divergence("base-distill", "distill", value), divergence("base-base_continued", "base_continued", 0.5)]
    tables = make_tables(divergence=pd.DataFrame(rows), steps={"distill": 900})
    (finding,) = distance("base-distill", study.pairs["base-distill"], study, tables)
    assert expected in finding.sentence and "900 optimiser steps" in finding.sentence
    assert "0.50 (0.45 to 0.55)" in finding.control


def test_every_finding_has_a_sample_and_a_control(study, whole):
    assert all(finding.sample and finding.control for finding in all_findings(study, whole))


def test_failing_gates_are_named(study, make_tables):
    bad = make_tables(evaluations={"base-distill": evaluation(["base", "distill"], fve=0.2)})
    assert "fve (1 of 1)" in all_findings(study, bad)[-1].sentence
