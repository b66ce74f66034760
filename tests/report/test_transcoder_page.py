"""Does the page show what transcoders cost, beside what the layer is worth, and say so where there is nothing?"""

from __future__ import annotations

import math
import re

import pytest
from made_up_transcoders import CHOICE, answers, evaluation, sweep
from pages import Tags, page_of, words_of

from reasondiff.config import Transcoders
from reasondiff.report.all_figures import draw
from reasondiff.report.drawing import styled, to_bytes
from reasondiff.report.gate_sections import gates
from reasondiff.report.inputs import FOLDERS, gather
from reasondiff.report.page import write_page
from reasondiff.report.sites import figures_of
from reasondiff.report.transcoder_sections import transcoders
from reasondiff.store import write_json, write_table


def section_of(study, tables) -> str:
    """What the section says, without its figures."""
    return words_of(*transcoders(study, tables, {}))


def with_settings(study, **changes):
    """The study with other settings in its section `transcoders`."""
    section = study.transcoders.model_dump()
    return study.model_copy(update={"transcoders": Transcoders.model_validate({**section, **changes})})


@pytest.fixture(scope="module")
def page(study, transcoded) -> str:
    return page_of(study, transcoded)


@pytest.fixture(scope="module")
def section(study, transcoded) -> str:
    return section_of(study, transcoded)


# ------------------------------------------------------------------------------------------------ what it shows


def test_a_page_with_transcoders_is_whole(page):
    tags = Tags(page)
    assert tags.open == [] and len(tags.ids) == len(set(tags.ids)) and "transcoders" in tags.ids
    assert {f"figure-transcoder{name}" for name in ("_sweep", "_layers", "s_at_once")} <= set(tags.ids)
    assert not re.search(r"\b(early|middle|late) (layer|block)", re.sub(r"<[^>]+>", " ", page).lower())


def test_the_choice_and_every_refusal_have_a_reason(section):
    assert "Trained on all layers: x4k8, chosen by the sweep. x4k8 is the sparsest of 2 that qualify" in section
    assert "x4k4 refused layer 0: 20.0% of latents are dead (limit 0.1)" in section
    assert "x8k8 qualifies off the Pareto front" in section


def test_the_ablation_cost_stands_beside_every_figure_of_a_layer(study, transcoded):
    (whole,) = transcoders(study, transcoded, {})
    tables = [inner for block in whole.blocks for inner in [block, *getattr(block, "blocks", [])]]
    of_layers = [one for one in tables if one.kind == "table" and "layer" in [column.title for column in one.columns]]
    assert len(of_layers) >= 6, "costs and imitation of two models, the sweep's layers, phases, seeds"
    assert all("mean abl., nats" in [column.title for column in one.columns] for one in of_layers)


def test_the_wished_limit_is_told_from_the_gate(section):
    assert "within 0.05" in section and "over 0.1" in section


def test_uninformative_layers_are_marked(section):
    assert "Uninformative: mean ablation costs under 0.02 nats" in section and "40 (9,000) uninformative" in section


def test_the_models_own_output_costs_nothing_and_says_so(section):
    assert "The MLPs' own output in their place costs 0, as it must." in section


def test_an_identity_at_fault_is_shouted(study, make_tables):
    faulty = make_tables(transcoders={("base", 0): evaluation(together={"identity": 1e-6})})
    assert "none of these figures can be believed" in section_of(study, faulty)


def test_seeds_are_the_null_and_stand_side_by_side(section):
    assert "The seeds of base are the null of every comparison between models" in section
    assert "base, seed against seed" in section and "distill, seed against seed" not in section
    assert "those of base, same point and seed: latents correspond by index" in section


def test_without_a_second_seed_there_is_no_null(study, make_tables):
    models = study.transcoders.model_dump()["models"]
    alone = with_settings(study, models={"base": {**models["base"], "seeds": [0]}})
    assert "there is no null" in section_of(alone, make_tables(transcoders={("base", 0): evaluation()}))


def test_answers_are_paired_and_shown_as_text(page, section):
    assert "100.0 % 60.0 % −40.0 points" in section and "0 plus 0?" in section
    assert "&lt;i&gt;transcoders says 0&lt;/i&gt;" in page and "<i>transcoders" not in page


def test_the_verdicts_of_many_layers_are_counted_per_set(study, transcoded):
    said = words_of(gates(study, transcoded))
    # of the layers 0, 1 and 2 the second is uninformative and the third fails against the linear map
    assert "base, traces, x4k8, seed0, all 1 fail 2 pass 1 not testable 2 pass 1 fail 1 not testable and 1 pass" in said
    assert "Verdicts per layer of transcoders (9)" in said and "uninformative: ablating costs 0.004 nats" in said


# ------------------------------------------------------------------------------------------------ where there is little


def test_a_study_without_transcoders_does_not_speak_of_them(study, whole):
    built_on_them = ("graphs", "motifs", "comparisons")
    without = study.model_copy(update=dict.fromkeys(("transcoders", *built_on_them)))
    assert transcoders(without, whole, {}) == []
    assert not [name for name in figures_of(study.pairs, [], [], None) if "transcoder" in name]
    assert "transcoder" not in page_of(without, whole).lower()


def test_a_named_point_needs_no_sweep(study, make_tables):
    choice = {**CHOICE, "how": "config", "qualified": False, "front": [], "refused": {}}
    choice["reason"] = "x4k8 is named in the config; no sweep was run to judge it"
    named = with_settings(study, sweep=None, point="x4k8")
    assert "transcoder_sweep" not in figures_of(study.pairs, [], [], named.transcoders)
    tables = make_tables(transcoders={("base", 0): evaluation()}, choice=choice)
    said = section_of(named, tables)
    assert "x4k8, named in the config." in said and "No sweep was run." in said and page_of(named, tables)


def test_transcoders_from_elsewhere_say_where_they_are_from(study, make_tables):
    place = {"folder": "ready/sets", "repo": None, "revision": None, "hookpoint": None}
    model = {**study.transcoders.model_dump()["models"]["base"], "seeds": [0], "layers": [0, 2, 5], "ready": place}
    ready = with_settings(study, models={"base": model}, points={}, sweep=None)
    said = section_of(ready, make_tables(transcoders={("base", 0): evaluation({0: {}, 2: {}, 5: {}})}))
    assert "0, 2 and 5 (n = 3)" in said and "not trained here: ready/sets" in said and "Trained on" not in said


def test_no_answers_and_no_evaluation_are_said(study, make_tables):
    said = section_of(study, make_tables(transcoder_answers={("base", 0): answers("base", [], [])}))
    assert "(n = 0)" in said and "No transcoder was evaluated." in said


def test_missing_figures_are_dashes(study, make_tables):
    table = evaluation({0: {"transcoder": math.nan}})
    table.loc[table["quantity"] == "fvu", ["value", "low", "high"]] = math.nan
    said = section_of(study, make_tables(transcoders={("base", 0): table}))
    assert "not measured" in said and "nan" not in said.lower()


# ------------------------------------------------------------------------------------------------ figures


def drawn(study, tables, kind: str) -> str:
    with styled(kind):
        return to_bytes(draw(kind, "", study, tables), "svg").decode()


def test_the_sweep_shows_expansions_and_rings_the_chosen_point(study, transcoded):
    svg = drawn(study, transcoded, "transcoder_sweep")
    assert all(f">{name}<" in svg for name in ("chosen", "expansion 4", "expansion 8", "x4k4", "x8k8", "limit"))


def test_a_sweep_without_informative_layers_says_so(study, make_tables):
    unknown = dict.fromkeys(["ce_recovered", "recovered_low", "recovered_high"], math.nan)
    tables = make_tables(sweep=sweep().assign(**unknown), choice=CHOICE)
    assert "no pilot layer is informative" in drawn(study, tables, "transcoder_sweep")


def test_layers_are_drawn_beside_their_floors(study, transcoded):
    svg = drawn(study, transcoded, "transcoder_layers")
    names = ("transcoder, seed 0", "transcoder, seed 1", "best linear map", "mean ablation", "uninformative layer")
    assert all(f">{name}<" in svg for name in names) and ">base (n = 40 problems)<" in svg


def test_layers_that_all_carry_something_have_no_shade(study, make_tables):
    tables = make_tables(transcoders={("base", 0): evaluation()})
    assert "uninformative" not in drawn(study, tables, "transcoder_layers")


def test_many_layers_and_missing_figures_can_be_drawn(study, make_tables):
    layers = {layer: {"transcoder": math.nan if layer == 7 else 0.01} for layer in range(28)}
    table = evaluation(layers)
    tables = make_tables(transcoders={("base", 0): table, ("distill", 0): table})
    for kind in ("transcoder_layers", "transcoders_at_once"):
        assert drawn(study, tables, kind) == drawn(study, tables, kind), "the same bytes each time"


@pytest.mark.parametrize("kind", ["transcoder_sweep", "transcoder_layers", "transcoders_at_once"])
def test_figures_without_data_say_so(study, make_tables, kind):
    assert ">no " in drawn(study, make_tables(), kind)


# ------------------------------------------------------------------------------------------------ from files


def test_the_page_can_be_made_from_the_files_that_the_stages_write(study, transcoded, tmp_path):
    home = tmp_path / "results/transcoders/distill/traces"
    card = {"code": "0123"}
    write_table(home / "x4k8/seed0/evaluation.tsv", evaluation(), card)
    write_table(home / "x4k8/seed0/responses.parquet", answers("distill", [True] * 9, [False] * 9), card)
    write_table(home / "sweep.tsv", sweep(), card)
    write_json(home / "choice.json", {key: CHOICE[key] for key in CHOICE if key != "card"}, card)
    for name, table in transcoded.summaries.items():
        write_table(tmp_path / f"report/{name}.tsv", table, card)
    read = gather(
        {
            "transcoders": [str(home / "x4k8/seed0/evaluation.tsv")],
            "transcoder_answers": [str(home / "x4k8/seed0/responses.parquet")],
            "transcoder_sweep": [str(home / "sweep.tsv")],
            "transcoder_choice": [str(home / "choice.json")],
            "summaries": [str(tmp_path / f"report/{name}.tsv") for name in transcoded.summaries],
        }
    )
    assert {"transcoders", "transcoder_answers", "transcoder_sweep"} <= set(FOLDERS)
    assert read.transcoders["model"].unique().tolist() == ["distill"] and read.transcoder_choice["point"] == "x4k8"
    page = write_page(study, read, _svgs(study, read), [], "00", {}).report
    assert "code of transcoders, evaluation.tsv" in page and "0 plus 0?" in page


def _svgs(study, tables) -> dict[str, str]:
    names = ("lengths", "accuracy", "divergence", "exclusive_counts", "transcoder_layers")
    return {name: drawn(study, tables, name) for name in names}


def test_a_study_without_transcoders_reads_empty_tables():
    read = gather({"transcoders": [], "transcoder_choice": [], "transcoder_sweep": []})
    assert read.transcoders.empty and read.transcoder_choice is None
