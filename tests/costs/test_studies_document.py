"""docs/studies.md says what the published studies cost in the figures that the workflow reckons."""

from __future__ import annotations

import re

import pytest
from published import PUBLISHED, as_markdown, changed, config_of, rows_of
from running import ROOT

DOCUMENT = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
COSTS = DOCUMENT.split("<!-- costs -->")[1].split("<!-- /costs -->")[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tables_are_those_of_the_configs(name):
    expected = as_markdown(rows_of(changed(name, {})))
    assert expected in COSTS, f"docs/studies.md is of another config; the table of {name} is now:\n{expected}"


def test_the_card_is_described_as_in_the_configs():
    cards = [config_of(name)["cost"]["card"] for name in PUBLISHED]
    assert cards[0] == cards[1]
    card = cards[0]
    for figure in (
        f"{card['memory_gib']} GiB", f"{card['bfloat16_tflops']} TFLOP/s", f"{card['float32_tflops']} TFLOP/s",
        f"{card['tf32_tflops']} in TF32",
        f"{card['memory_tb_per_second']} TB/s", f"{card['bfloat16_share']:.0%}".replace("%", " %"),
        f"{card['float32_share']:.0%}".replace("%", " %"), f"{card['memory_share']:.0%}".replace("%", " %"),
        f"{card['block_milliseconds']} ms",
    ):  # fmt: skip
        assert figure in COSTS, figure


def test_every_key_of_the_section_is_explained():
    for key in config_of("deepscaler")["cost"]:
        assert f"`{key}`" in COSTS, key


def test_no_stage_of_a_published_study_is_unknown():
    assert not [row["basis"] for name in PUBLISHED for row in rows_of(changed(name, {})) if "not known" in row["basis"]]
    assert re.search(r"not measured|nothing of it was measured", COSTS)
