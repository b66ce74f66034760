"""Does the latent browser hold what the stages found, whatever the corpus says, and within its size?"""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from made_up_examples import planted_rows
from made_up_labels import CARD, PAIR, SET, firing, label, latent_table, score, write_dictionary
from pages import Tags

from reasondiff.latents.example_table import read_examples, table_of, write_examples
from reasondiff.report.browser_sections import apart, inside
from reasondiff.report.latent_pages import PageFiles, browsed, latent_id, packed, page_files, short
from reasondiff.report.page import render, write_page
from reasondiff.report.sites import dictionary_of
from reasondiff.store import ArtefactError, as_script, write_json, write_table

NASTY = "</script><script>alert('<b>&\u2028"


@pytest.fixture(scope="module")
def tables(make_tables):
    scores = {PAIR: [score(0), score(0, "shuffled", 0.5), score(2, value=float("nan"))], SET: [score(1)]}
    scores = {folder: pd.DataFrame(rows) for folder, rows in scores.items()}
    return make_tables(
        latents={"base-distill": latent_table()},
        firing={PAIR: firing(range(4))},
        label_scores={PAIR: scores[PAIR]},
        transcoder_label_scores={SET: scores[SET]},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> PageFiles:
    return write_dictionary(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def dictionary(files, study, tables):
    return browsed(files, study, tables)


def written(study, tables, dictionaries, **more):
    return write_page(study, tables, {"exclusive_counts": "<svg></svg>"} | SVGS, [], "00", {}, dictionaries, **more)


SVGS = {name: "<svg></svg>" for name in ("lengths", "accuracy", "divergence", "transcoder_layers")}


def data_in(page: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="browser-data">(.*?)</script>', page, re.DOTALL)[1]
    )


# ------------------------------------------------------------------------------------------------ what is in it


def test_a_latent_is_shown_with_its_windows_from_the_top(dictionary):
    latent = dictionary.latents[0]
    places = [(example["kind"], example["place"]) for example in latent["examples"]]
    # 6 strongest from rank 0, then 3 of the upper quantile (1) and 3 of the lower one (0)
    assert places == [("strongest", n) for n in range(6)] + [("quantile", 1)] * 3 + [("quantile", 0)] * 3
    first = latent["examples"][0]
    assert first["tokens"][first["at"]] == " Wait" and first["fires"][first["at"]] == first["value"] == 3.0


def test_windows_that_labels_are_scored_on_are_not_shown(dictionary, files):
    scored = set(read_examples(files.examples, parts=["score"])["document"])
    shown = {example["document"] for latent in dictionary.latents for example in latent["examples"]}
    assert shown and not shown & scored


def test_a_token_is_shaded_only_where_the_latent_fires(dictionary):
    example = dictionary.latents[1]["examples"][0]
    assert {example["tokens"][place] for place in example["fires"]} == {" seven"}


def test_phase_and_outcome_are_those_of_the_trace(dictionary):
    said = [example["correct"] for example in dictionary.latents[0]["examples"][:3]]
    assert said == [True, False, None] and dictionary.latents[2]["examples"][0]["phase"] == "answer"


def test_rates_are_told_for_phases_that_have_tokens_in_the_order_of_the_text(dictionary):
    assert dictionary.facts["phases"] == ["prompt", "think", "answer"]
    assert dictionary.latents[0]["rates"] == [0.02] * 3 and dictionary.facts["tokens_by_phase"] == [400, 500, 100]


def test_ownership_comes_with_intervals_and_a_verdict(dictionary):
    reasoning, base, shared, _ = (latent["owner"] for latent in dictionary.latents)
    assert reasoning["verdict"] == base["verdict"] == "not in the other model" and shared["verdict"] == "in both"
    assert reasoning["nu_error"] == [0.1, 0.05, 0.2] and reasoning["norms"] == [0.02, 0.98]
    assert base["template"] and not shared["template"] and shared["auroc"] == [0.95, 0.6]


def test_each_model_of_a_pair_has_its_own_logits(dictionary):
    assert [one["model"] for one in dictionary.latents[0]["logits"]] == ["base", "distill"]
    assert dictionary.latents[0]["logits"][0]["lowered_by"] == [-2.0]


def test_scores_are_those_of_the_latent_and_missing_ones_are_null(dictionary):
    own, shuffled = dictionary.latents[0]["scores"]
    assert own[:4] == ["detection", "all", "own", 0.9] and shuffled[2:4] == ["shuffled", 0.5]
    assert dictionary.latents[1]["scores"] == [] and dictionary.latents[2]["scores"][0][3] is None


def test_transcoder_latents_have_scores_but_no_owner(tmp_path, study, tables):
    found = browsed(write_dictionary(tmp_path, SET), study, tables)
    assert [latent["owner"] for latent in found.latents] == [None] * 4
    assert found.latents[1]["scores"] and not found.latents[0]["scores"]
    assert found.latents[0]["id"] == "latent-distill-3-x4k8-0-0" and found.name == "distill-traces-x4k8-seed0"


def test_the_offline_provider_has_a_pattern_fit_and_claude_an_interpretability(tmp_path, study, tables, dictionary):
    assert dictionary.facts["measure"] == "pattern fit"
    said = json.dumps(packed([dictionary]))
    assert "interpretab" not in said
    assert (
        browsed(write_dictionary(tmp_path, provider="anthropic"), study, tables).facts["measure"] == "interpretability"
    )


def test_a_failure_keeps_its_reason_and_gets_no_label(tmp_path, study, tables):
    failed = label(0, status="failed", label=None, explanation=None, reason="refused twice", pattern=None)
    silent = label(1, status="no examples", label=None, explanation=None, pattern=None)
    one, other = browsed(write_dictionary(tmp_path, rows=[failed, silent]), study, tables).latents
    assert (one["status"], one["label"], one["reason"]) == ("failed", None, "refused twice")
    assert (other["status"], other["label"]) == ("no examples", None)


def test_a_link_to_a_latent_names_the_text_only_where_there_are_several(study):
    place = dictionary_of(f"{PAIR}/labels.json")
    assert latent_id(place, 3, 17, study) == "latent-base-distill-3-btk24-0-17"
    two = study.model_copy(update={"text": {**study.text, "more": study.text["traces"]}})
    assert latent_id(place, 3, 17, two) == "latent-base-distill-traces-3-btk24-0-17"


def test_numbers_keep_three_digits_and_nothing_is_null():
    assert [short(value) for value in (1.23456, 1234567, 0.000123456, float("nan"), None)] == [
        1.23, 1234567, 0.000123, None, None,
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ the block of data


def test_every_token_stands_once_and_is_found_again(dictionary):
    block = packed([dictionary])
    assert len(block["strings"]) == len(set(block["strings"]))
    for latent, plain in zip(block["latents"], dictionary.latents, strict=True):
        for example, given in zip(latent["examples"], plain["examples"], strict=True):
            assert [block["strings"][number] for number in example[8]] == given["tokens"]
            assert dict(zip(example[9][::2], example[9][1::2], strict=True)) == given["fires"]
    assert block["strings"][block["latents"][0]["logits"][0]["lowered"][0]] == " down"


def test_latents_of_several_dictionaries_say_whose_they_are(tmp_path, study, tables, dictionary):
    block = packed([dictionary, browsed(write_dictionary(tmp_path, SET), study, tables)])
    assert [latent["of"] for latent in block["latents"]] == [0] * 4 + [1] * 4
    assert [found["kind"] for found in block["dictionaries"]] == ["crosscoder", "transcoder"]


def test_corpus_text_cannot_leave_the_block_of_data():
    text = as_script({"strings": [NASTY]})
    assert not set(text) & set("<>&\u2028\u2029") and json.loads(text) == {"strings": [NASTY]}


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError):
        as_script({"rate": float("nan")})


def test_a_page_with_hostile_corpus_labels_and_reasons_stays_whole(tmp_path, study, tables):
    bad = label(0, label=NASTY, explanation=NASTY)
    failed = label(1, status="failed", label=None, explanation=None, reason=NASTY)
    files = write_dictionary(tmp_path, rows=[bad, failed])
    rows = [{**row, "tokens": [NASTY] * len(row["tokens"])} for row in planted_rows(("Wait", "seven"))]
    write_examples(files.examples, table_of(rows), {})
    page = render("", None, [inside(study, [browsed(files, study, tables)])], {})
    assert "alert('<b>" not in page and page.count("</script>") == 3 and Tags(page).open == []
    data = data_in(page)
    assert data["latents"][0]["label"] == NASTY and NASTY in data["strings"]


def test_the_script_of_the_browser_writes_no_markup_and_fetches_nothing(study, dictionary):
    page = render("", None, [inside(study, [dictionary])], {})
    script = page[page.rindex("<script>") :]
    assert "browser-data" in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|fetch\(|import\(|XMLHttp|eval\(", page)
    assert all(place.startswith(("#", "data:")) for place in Tags(page).fetched)


def test_a_page_without_a_browser_carries_none_of_its_script(study):
    assert "browser" not in render("", None, [inside(study, [])], {})


# ------------------------------------------------------------------------------------------------ its size


def test_a_light_report_holds_its_latents_itself(study, tables, dictionary):
    pages = written(study, tables, [dictionary])
    assert len(data_in(pages.report)["latents"]) == 4 and list(pages.beside) == ["index.html"]
    assert "in the report itself" in pages.beside["index.html"]
    assert re.findall(r'<section id="(\w+)">', pages.report)[-3:] == ["pages", "costs", "provenance"]


def test_a_heavy_report_leads_to_a_page_for_each_dictionary(tmp_path, study, tables, dictionary):
    other = browsed(write_dictionary(tmp_path, SET), study, tables)
    whole = len(written(study, tables, [dictionary, other]).report.encode())
    pages = written(study, tables, [dictionary, other], limit_bytes=whole - 1)
    names = ["base-distill-traces-layer3-btk24-seed0.html", "distill-traces-x4k8-seed0.html"]
    assert list(pages.beside) == ["index.html", *names]
    assert "browser-data" not in pages.report and all(f'href="report/latents/{name}"' in pages.report for name in names)
    for name, expected in zip(names, (dictionary, other), strict=True):
        assert [latent["id"] for latent in data_in(pages.beside[name])["latents"]] == [
            latent["id"] for latent in expected.latents
        ]
        assert 'href="../../report.html#pages"' in pages.beside[name] and f'href="{name}"' in pages.beside["index.html"]
    assert len(pages.report.encode()) < whole


def test_at_the_limit_the_report_still_holds_its_latents(study, tables, dictionary):
    whole = len(written(study, tables, [dictionary]).report.encode())
    assert "browser-data" in written(study, tables, [dictionary], limit_bytes=whole).report


def test_the_same_files_give_the_same_bytes(files, study, tables):
    first, second = (as_script(packed([browsed(files, study, tables)])) for _ in range(2))
    assert first == second


# ------------------------------------------------------------------------------------------------ little, and bad input


def test_a_study_without_labelled_latents_says_so(tmp_path, study, tables):
    empty = browsed(write_dictionary(tmp_path, rows=[]), study, tables)
    for dictionaries in ([], [empty]):
        pages = written(study, tables, dictionaries, limit_bytes=10**9)
        assert "none has a page (n = 0)" in pages.report and "browser-data" not in pages.report
    assert render("", None, [apart(study, empty)], {}).count("<script") == 2


def test_one_latent_is_enough(tmp_path, study, tables):
    found = browsed(write_dictionary(tmp_path, rows=[label(2)]), study, tables)
    assert [latent["latent"] for latent in found.latents] == [2]


def test_a_latent_that_never_fired_has_a_page_without_examples(tmp_path, study, tables):
    files = write_dictionary(tmp_path, rows=[label(0, status="no examples", label=None, explanation=None)])
    write_examples(files.examples, table_of([]), {})
    (latent,) = browsed(files, study, tables).latents
    assert latent["examples"] == [] and latent["status"] == "no examples"


def test_a_labelled_latent_that_the_firing_table_lacks_is_an_error(tmp_path, study, tables):
    files = write_dictionary(tmp_path)
    write_table(files.firing, firing([0, 1, 2]), CARD)
    with pytest.raises(ArtefactError, match="latent 3 of layer 3"):
        browsed(files, study, tables)


def test_a_labelled_latent_without_a_row_in_the_latent_table_is_an_error(files, study, make_tables):
    with pytest.raises(ArtefactError, match="latent table"):
        browsed(files, study, make_tables(latents={"base-distill": latent_table(2)}))


def test_histograms_that_do_not_fit_their_edges_are_an_error(tmp_path, study, tables):
    files = write_dictionary(tmp_path)
    write_table(files.firing, firing(range(4)), {**CARD, "histogram_edges": [1.0]})
    with pytest.raises(ArtefactError, match="one bin more than edges"):
        browsed(files, study, tables)


def test_files_are_matched_by_their_folder_whatever_their_order(tmp_path):
    one, other = (write_dictionary(tmp_path, folder) for folder in (PAIR, SET))
    lists = {f"pages_{kind}": [getattr(one, kind), getattr(other, kind)] for kind in ("examples", "firing", "labels")}
    assert page_files({**lists, "pages_logits": [other.logits, one.logits]}) == [one, other]
    assert page_files({}) == []


def test_a_dictionary_without_its_logits_is_an_error(tmp_path):
    files = write_dictionary(tmp_path)
    lists = {f"pages_{kind}": [getattr(files, kind)] for kind in ("examples", "firing", "labels")}
    with pytest.raises(ArtefactError, match="no logits"):
        page_files(lists)


def test_a_broken_table_is_named(tmp_path, study, tables):
    files = write_dictionary(tmp_path)
    write_json(files.logits, {"no": "table"})
    with pytest.raises(ArtefactError, match="logits.parquet"):
        browsed(files, study, tables)
