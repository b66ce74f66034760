"""Does a path say which model, pair and dictionary a file belongs to?"""

from __future__ import annotations

import pandas as pd
import pytest

from reasondiff.config import Pair
from reasondiff.report.sites import DICTIONARY, PAIR_TEXT, figures_of, joined, labels, shown_sites


def pair(role: str, control: str | None) -> Pair:
    return Pair(models=("a", "b"), tokenizer="t", texts=("x",), role=role, control=control)


PAIRS = {"real": pair("effect", "null"), "null": pair("control", None), "lonely": pair("control", None)}


def test_a_path_says_which_dictionary_it_is():
    said = labels("results/smoke/crosscoders/base-distill/traces/layer12/btk24/seed1/latents.tsv", DICTIONARY)
    assert said == {"pair": "base-distill", "text": "traces", "layer": 12, "point": "btk24", "seed": 1}


def test_a_file_in_another_kind_of_folder_is_refused():
    with pytest.raises(ValueError, match="does not lie in a folder"):
        labels("results/models/base/accuracy.tsv", PAIR_TEXT)


def test_tables_are_joined_with_what_their_paths_say():
    tables = {f"crosscoders/{name}/x/divergence.tsv": pd.DataFrame({"layer": [0, 1]}) for name in ("p", "q")}
    assert joined(tables, PAIR_TEXT)["pair"].tolist() == ["p", "p", "q", "q"]


def test_no_tables_give_an_empty_one_with_the_columns_of_the_paths():
    assert list(joined({}, DICTIONARY).columns) == ["pair", "text", "layer", "point", "seed"]


def test_a_control_is_shown_with_its_effect_pair_and_alone_only_without_one():
    sites = ["real/x/layer3", "null/x/layer3", "null/x/layer4", "lonely/x/layer3"]
    assert shown_sites(PAIRS, sites) == ["real/x/layer3", "null/x/layer4", "lonely/x/layer3"]


def test_the_figures_are_known_from_the_configuration_alone():
    figures = figures_of(PAIRS, ["real/x/layer3", "null/x/layer3"], ["real/x/layer3", "null/x/layer3"], None)
    assert figures["scaling_real_x_layer3"] == ("scaling", "real/x/layer3")
    assert "fidelity_null_x_layer3" in figures and "scaling_null_x_layer3" not in figures


def test_a_study_without_dictionaries_still_has_the_figures_of_its_models():
    assert set(figures_of(PAIRS, [], [], None)) == {"lengths", "accuracy", "divergence", "exclusive_counts"}
