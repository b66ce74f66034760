"""Is the page whole, safe to open from disk, and honest when there is little to show?"""

from __future__ import annotations

import json
import re

import pytest
from made_up import latents
from pages import Tags, page_of

from reasondiff.report.page import embedded


@pytest.fixture(scope="module")
def page(study, whole) -> str:
    return page_of(study, whole)


def test_the_page_fetches_nothing(page):
    assert all(place.startswith(("#", "data:")) or not place for place in Tags(page).fetched)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest", page)


def test_every_element_is_closed_and_every_id_is_its_own(page):
    tags = Tags(page)
    assert tags.open == [] and len(tags.ids) == len(set(tags.ids))


def test_the_contents_list_leads_to_every_section(page):
    links = re.findall(r'<li><a href="#(\w+)">', page)
    assert links == re.findall(r'<section id="(\w+)">', page) and "gates" in links


def test_the_banner_of_a_tiny_study_is_on_the_page(page, study):
    assert study.report.banner in page


def test_generated_text_is_shown_as_text(page):
    assert "<b>4</b>" not in page and "&lt;b&gt;4&lt;/b&gt;" in page


def test_the_card_says_what_the_page_was_made_of(page):
    card = re.search(r'<script type="application/json" id="card">(.*?)</script>', page)[1]
    assert json.loads(card)["study"] == "tiny"


def test_the_control_and_the_sample_stand_beside_the_claim(page):
    assert "30 distill only (more than the null)" in page and "30 of 100" in page
    assert "1 of 100 (1.0 %)" in page and "+29.0 points" in page


def test_no_layer_is_called_early_or_late(page):
    words = re.sub(r"<[^>]+>", " ", page).lower()
    assert not re.search(r"\b(early|middle|late) (layer|block)", words)


def test_a_study_without_any_results_still_has_a_page(study, make_tables):
    page = page_of(study, make_tables(), facts=[])
    assert "No crosscoder was described" in page and "none (n = 0)" in page and "No gate was asked" not in page


def test_when_no_latent_passes_the_heading_says_leaning(study, make_tables):
    leaning = latents(4, 6).assign(delta=[0.2] * 4 + [0.5] * 6, tag=["other"] * 4 + ["shared"] * 6)
    page = page_of(study, make_tables(latents={"base-distill": leaning}))
    assert "Most leaning to distill, not exclusive: none of 10 live latents passes the cut-off." in page


def test_a_page_with_only_dead_latents_says_so(study, make_tables):
    page = page_of(study, make_tables(latents={"base-distill": latents(0, 0, dead=4)}))
    assert "None of the 0 live latents is tagged shared" in page


def test_a_page_with_one_seed_and_no_control_says_so(study, make_tables):
    page = page_of(study, make_tables(latents={"base-distill": latents(2, 8)}))
    assert "no control to compare with" in page and "more than the null" not in page


def test_an_embedded_figure_has_no_prologue_no_fixed_size_and_only_ids_that_are_used():
    inside = '<g id="axes_1"><path id="m1"/><use xlink:href="#m1"/></g>'
    svg = f'<?xml version="1.0"?><svg xmlns="s" width="100pt" height="50pt" viewBox="0 0 1 1">{inside}</svg>'
    kept = '<g><path id="m1"/><use xlink:href="#m1"/></g>'
    assert embedded(svg) == f'<svg xmlns="s" style="width:100pt" viewBox="0 0 1 1">{kept}</svg>'
