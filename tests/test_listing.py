"""Which dictionaries and circuits a study asks for."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from reasondiff import listing
from reasondiff.config import load_study

SMOKE = yaml.safe_load((Path(__file__).resolve().parents[1] / "config" / "smoke.yaml").read_text())


@pytest.fixture
def study_with():
    """`study_with(change)`: the smoke study, once `change` has had its way with the file's content."""

    def make(change=lambda content: None):
        content = copy.deepcopy(SMOKE)
        change(content)
        return load_study(content)

    return make


def test_banks_meet_where_pair_text_and_layer_are_the_same(study_with):
    def second_bank(content):
        content["banks"]["more"] = {**content["banks"]["main"], "layers": [0, 1], "points": {}}
        content["banks"]["more"]["points"] = {"btk4": {**content["banks"]["main"]["points"]["btk8"], "k": 4}}

    found = listing.sites(study_with(second_bank))
    assert {site.folder: banks for site, banks in found.items()} == {
        "base-distill/traces/layer1": ["main", "more"],
        "base-base_continued/traces/layer1": ["control"],
        "base-format_only/traces/layer1": ["control"],
        "base-distill/traces/layer0": ["more"],
    }


def test_single_model_dictionaries_are_left_out_of_the_coupled(study_with):
    study = study_with()
    coupled = [("l1", 0), ("btk8", 0), ("btk8", 1)]
    assert listing.points(study, ["main"]) == [*coupled, ("alone0", 0), ("alone1", 0)]
    assert listing.points(study, ["main"], coupled=True) == coupled


@pytest.mark.parametrize(
    ("kept", "expected"),
    [({"l1", "btk8", "alone0"}, ("main", "btk8")), ({"l1"}, None), ({"alone0", "alone1"}, None)],
)
def test_random_weights_get_the_first_batch_topk_point_that_reads_two_models(study_with, kept, expected):
    def keep(content):
        points = content["banks"]["main"]["points"]
        content["banks"]["main"]["points"] = {name: points[name] for name in points if name in kept}
        content["concepts"] = None
        content["graphs"]["links"] = None

    assert listing.untrained_point(study_with(keep), ["main"]) == expected


def test_without_graphs_nothing_is_traced(study_with):
    def no_graphs(content):
        content["graphs"] = content["motifs"] = content["comparisons"] = None

    assert listing.subjects(study_with()) == [("distill", 0), ("base", 0), ("base", 1)]
    assert listing.subjects(study_with(no_graphs)) == []
    assert listing.traced_models(study_with(no_graphs)) == {}


def test_latents_of_pairs_that_are_only_counted_are_not_shown(study_with):
    def null(content):
        pairs = content["pairs"]
        pairs["base-rl"] = {**pairs["base-base_continued"], "models": ["base", "rl"]}
        pairs["base-distill"]["nulls"] = {"other": "base-rl", "same": "base-base_continued"}

    study = study_with(null)
    assert not listing.shows_latents(study, "base-rl")
    assert all(listing.shows_latents(study, name) for name in ("base-distill", "base-base_continued", "distill-rl"))
