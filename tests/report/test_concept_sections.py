"""Does the page say which latents tell known concepts, and never more than their baselines and intervals allow?"""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_up_labels import concept
from pages import page_of, words_of

from reasondiff.report.all_figures import draw
from reasondiff.report.concept_sections import concept_findings, concepts
from reasondiff.report.concept_tables import all_concepts, beside_baselines, tally
from reasondiff.report.drawing import styled, to_bytes
from reasondiff.report.inputs import gather
from reasondiff.report.label_captions import label_captions
from reasondiff.store import write_table

SITE, SET = "crosscoders/base-distill/traces/layer3", "transcoders/distill/traces/x4k8/seed0"
ANY = {"point": None, "seed": None}  # of baselines that serve all dictionaries of a site


def rows(name: str, latent: float, neuron: float = 0.5, **more: float) -> list[dict]:
    """A concept whose best latent and neurons of both models have these figures; intervals of 0.05 either way."""
    found = [concept(name, "latent", latent), concept(name, "latent", latent - 0.1, tag="shared", unit=5)]
    found += [concept(name, "neuron", neuron, model="base", **ANY)]
    found += [concept(name, "neuron", neuron - 0.2, model="distill", **ANY)]
    return [*found, *(concept(name, kind.replace("_", " "), value, **ANY) for kind, value in more.items())]


def untestable(name: str) -> list[dict]:
    nothing = dict.fromkeys(["f1", "f1_low", "f1_high", "auroc", "auroc_low", "auroc_high", "unit"], math.nan)
    return [concept(name, kind, 0, **nothing, reason="3 tokens, 20 are needed") for kind in ("latent", "neuron")]


def table() -> pd.DataFrame:
    """Above the neuron by 0.3; below it by 0.2; within the intervals; and one that cannot be tested."""
    found = rows("step word", 0.8, 0.5, random_direction=0.3, untrained_dictionary=0.75, probe=0.95)
    found += rows("operator", 0.4, 0.6, random_direction=0.35, untrained_dictionary=0.2, probe=0.95)
    return pd.DataFrame([*found, *rows("name", 0.55, 0.5, probe=0.9), *untestable("think marker")])


@pytest.fixture(scope="module")
def measured(make_tables):
    return make_tables(concepts={SITE: table()})


def of(tables) -> pd.DataFrame:
    return all_concepts(tables.concepts, tables.transcoder_concepts)


def words(study, tables) -> str:
    return words_of(*concepts(study, tables, {}))


# ------------------------------------------------------------------------------------------------ tables


def test_each_concept_stands_beside_its_baselines(measured):
    frame = beside_baselines(of(measured), "f1")
    row = frame[(frame["concept"] == "step word") & (frame["tag"] == "all")].iloc[0]
    assert row[["latent", "f1", "neuron", "random", "untrained", "probe"]].tolist() == [17, 0.8, 0.5, 0.3, 0.75, 0.95]
    assert row["neuron_low"] == pytest.approx(0.45) and frame["tag"].tolist().count("shared") == 3


def test_of_neurons_in_two_models_the_better_on_choose_is_shown_even_where_it_is_worse_on_score(make_tables):
    found = pd.DataFrame(rows("name", 0.8))
    found.loc[(found["kind"] == "neuron") & (found["model"] == "distill"), "f1_choose"] = 0.9
    row = beside_baselines(of(make_tables(concepts={SITE: found})), "f1").iloc[0]
    assert row["neuron"] == pytest.approx(0.3)


def test_a_baseline_of_one_dictionary_is_not_lent_to_another(make_tables):
    found = [*rows("name", 0.8), concept("name", "latent", 0.7, point="l1")]
    found += [concept("name", "random direction", 0.3), concept("name", "random direction", 0.4, point="l1")]
    frame = beside_baselines(of(make_tables(concepts={SITE: pd.DataFrame(found)})), "f1")
    frame = frame[frame["tag"] == "all"].set_index("point")
    assert frame["random"].to_dict() == {"btk24": 0.3, "l1": 0.4} and frame["neuron"].tolist() == [0.5, 0.5]


def test_each_figure_has_the_latent_that_was_picked_by_it(make_tables):
    found = [*rows("name", 0.8), concept("name", "latent", 0.9, picked_by="auroc", unit=33)]
    tables = of(make_tables(concepts={SITE: pd.DataFrame(found)}))
    assert beside_baselines(tables, "f1")["latent"].iloc[0] == 17
    assert beside_baselines(tables, "auroc")["latent"].tolist() == [33]


def test_concepts_are_above_below_or_open_by_intervals_that_do_not_overlap(measured):
    frame = beside_baselines(of(measured), "f1")
    row = tally(frame[frame["tag"] == "all"], "f1").iloc[0]
    # 0.75 to 0.85 over 0.45 to 0.55; 0.35 to 0.45 under 0.55 to 0.65; 0.50 to 0.60 beside 0.45 to 0.55
    assert row[["concepts", "testable", "neuron_above", "neuron_below"]].tolist() == [4, 3, 1, 1]
    # random directions were tried for two: 0.75 over 0.35, 0.35 to 0.45 overlaps 0.30 to 0.40
    assert row[["random_n", "random_above"]].tolist() == [2, 1]
    assert row[["untrained_above", "probe_above", "probe_below"]].tolist() == [1, 0, 3]


def test_intervals_that_touch_leave_the_question_open(make_tables):
    found = beside_baselines(of(make_tables(concepts={SITE: pd.DataFrame(rows("name", 0.625, 0.5))})), "f1")
    found = found.assign(f1_low=0.55, neuron_high=0.55)
    assert tally(found[found["tag"] == "all"], "f1")["neuron_above"].tolist() == [0]


# ------------------------------------------------------------------------------------------------ words


def test_the_section_shows_figures_with_intervals_and_says_what_cannot_be_tested(study, measured):
    said = words(study, measured)
    assert "0.80 (0.75 to 0.85) 0.50 (0.45 to 0.55)" in said and "picked on the part choose" in said
    assert "Not testable: think marker (3 tokens, 20 are needed)." in said and "By tag (3 rows)" in said
    assert "base-distill, layer 3, btk24, seed 0 4 1 of 3 1 1 of 2 1 of 2 0 of 3" in said and "nan" not in said


def test_the_finding_counts_and_names_every_baseline(study, measured):
    (found,) = concept_findings(study, measured)
    assert "crosscoders, 1 of 3 (below in 1, open in 1)" in found.sentence
    assert "random directions in 1 of 2" in found.control and "the probe in 0 of 3" in found.control
    assert "4 concepts, 1 dictionaries, at most 40 problems" in found.sample and "not independent" in found.sample
    assert "does not mean" in found.caution


def test_layers_of_a_set_are_counted_together_and_unfold_apart(study, make_tables):
    layers = pd.concat([table().assign(layer=layer, point="x4k8") for layer in (0, 10, 2)])
    layers.loc[layers["kind"] != "latent", ["point", "seed"]] = None
    tables = make_tables(transcoder_concepts={SET: layers})
    assert "transcoders, 3 of 9 (below in 3, open in 3)" in concept_findings(study, tables)[0].sentence
    said = words(study, tables)
    assert "distill, x4k8, seed 0, transcoders of 3 layers" in said and "layer 10: best latent per concept" in said


def test_concepts_of_which_none_can_be_tested_claim_nothing(study, make_tables):
    tables = make_tables(concepts={SITE: pd.DataFrame(untestable("name"))})
    (found,) = concept_findings(study, tables)
    assert "cannot be said (n = 0 of 1 can be tested)" in found.sentence and "none measured" in found.control
    assert "Not testable: name" in words(study, tables)


def test_a_tag_without_latents_is_a_row_of_dashes(study, make_tables):
    nothing = {**untestable("name")[0], "concept": "name", "tag": "base_only", "reason": "no latent has this tag"}
    tables = make_tables(concepts={SITE: pd.DataFrame([*rows("name", 0.8), {**nothing, "candidates": 0}])})
    said = words(study, tables)
    assert "name base only – – 0.50" in said and "Not testable" not in said


def test_a_study_of_other_text_does_not_speak_of_concepts(study, make_tables, measured):
    without = study.model_copy(update={"concepts": None})
    assert concepts(without, measured, {}) == [] and concept_findings(without, measured) == []
    assert "concepts" not in label_captions(without, measured)
    assert 'id="concepts"' not in page_of(without, make_tables())


def test_no_measured_concept_is_said(study, make_tables):
    assert "No concept was measured (n = 0)." in words(study, make_tables())
    assert concept_findings(study, make_tables()) == []


# ------------------------------------------------------------------------------------------------ figure, files


def drawn(study, tables) -> str:
    with styled("concepts"):
        return to_bytes(draw("concepts", "", study, tables), "svg").decode()


def test_the_figure_shows_testable_concepts_beside_their_baselines(study, measured):
    svg = drawn(study, measured)
    names = ("step word", "best latent", "best neuron", "random directions", "probe", "base-distill, layer 3, btk24")
    assert all(f">{name}<" in svg for name in names) and ">think marker<" not in svg
    assert "above the best neuron in 1 of 3, below in 1" in label_captions(study, measured)["concepts"]


def test_a_figure_without_concepts_says_so(study, make_tables):
    for found in ({}, {SITE: pd.DataFrame(untestable("name"))}):
        assert ">no concept was measured in a crosscoder<" in drawn(study, make_tables(concepts=found))


def test_concepts_are_read_from_their_files(study, measured, tmp_path):
    write_table(tmp_path / SITE / "concepts.tsv", table(), {})
    write_table(tmp_path / SET / "concepts.tsv", table().assign(point="x4k8"), {})
    paths = {
        "concepts": str(tmp_path / SITE / "concepts.tsv"),
        "transcoder_concepts": str(tmp_path / SET / "concepts.tsv"),
    }
    read = gather(paths)
    assert read.concepts["pair"].unique().tolist() == ["base-distill"]
    assert read.transcoder_concepts["model"].unique().tolist() == ["distill"]
    assert words_of(*concepts(study, gather({"concepts": paths["concepts"]}), {})) == words(study, measured)
