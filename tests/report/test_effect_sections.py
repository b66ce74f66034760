"""The page says that latents matter only where they do more than matched random sets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from reasondiff.evidence.effects import COLUMNS
from reasondiff.report.effect_sections import effect_findings, set_effects
from reasondiff.report.wording import NULL

KEY = {"pair": "base-distill", "text": "traces", "layer": 3, "point": "btk24", "seed": 0}


def row(direction: str, quantity: str, value: float, excess: float, name: str = "top_delta", **changes) -> dict:
    """A tested set of 20 latents; the ends of intervals lie 0.05 away."""
    figures = {"value": value, "random_mean": value - excess, "excess": excess}
    ends = {
        f"{of}_{end}": figures[of] + by for of in ("value", "excess") for end, by in (("low", -0.05), ("high", 0.05))
    }
    known = {"direction": direction, "set": name, "phase": "response", "quantity": quantity, "random_low": 0.0}
    counts = {"random_high": 0.2, "p": 1 / 21, "n_random": 20, "size": 20, "n_problems": 40, "n_tokens": 5000}
    return {**KEY, **known, **figures, **ends, **counts, "status": "tested", **changes}


@pytest.fixture
def tables_with(make_tables):
    """`tables_with(rows)`: what a study wrote, with these effects."""

    def make(*rows: dict):
        found = pd.DataFrame(list(rows), columns=[*KEY, *COLUMNS])
        return dataclasses.replace(make_tables(), set_effects=found)

    return make


def findings(study, tables):
    return effect_findings("base-distill", study.pairs["base-distill"], study, tables)


def test_a_set_that_does_more_than_random_ones_is_said_to_and_its_control_stands_beside(study, tables_with):
    (found,) = findings(study, tables_with(row("patched", "kl_removed", 0.40, 0.30)))
    assert "take away 40.0 % of the KL" in found.sentence and "more than matched random sets" in found.sentence
    assert "excess 25.0 to 35.0 points, p = 0.05" in found.sentence
    assert "10.0 % in the mean of 20 matched random sets" in found.control
    assert "5,000 response tokens of 40 problems" in found.sample


def test_a_set_that_does_what_random_ones_do_is_not_distinguishable_from_them(study, tables_with):
    (found,) = findings(study, tables_with(row("ablated", "ce_increase_nats", 0.20, 0.01)))
    assert "cost 0.200 nats" in found.sentence and NULL in found.sentence
    assert "more than" not in found.sentence


def test_a_set_without_random_ones_is_told_with_the_reason(study, tables_with):
    blank = dict.fromkeys(
        ["random_mean", "random_low", "random_high", "excess", "excess_low", "excess_high", "p"], np.nan
    )
    why = "not testable: 25 other live latents to draw 20 from, expected 40 or more"
    untested = row("patched", "kl_removed", 0.4, 0.3) | blank | {"n_random": 0, "status": why}
    (found,) = findings(study, tables_with(untested))
    assert why in found.sentence and found.control == "no matched random sets"
    assert "more than matched" not in found.sentence


def test_other_quantities_and_phases_and_whole_rows_make_no_finding(study, tables_with):
    rows = [
        row("patched", "kl_nats", 0.4, 0.3),
        row("patched", "kl_removed", 0.4, 0.3, phase="think"),
        row("patched", "kl_removed", 0.4, 0.3, name="all_latents"),
    ]
    assert findings(study, tables_with(*rows)) == []
    assert findings(study, tables_with()) == []


def test_the_section_shows_every_row_and_is_absent_where_nothing_is_tested(study, tables_with):
    rows = [row("patched", "kl_removed", 0.4, 0.3), row("patched", "kl_removed", 0.4, 0.3, phase="think")]
    (section,) = set_effects(study, tables_with(*rows))
    tables = [block for details in section.blocks[1:] for block in details.blocks]
    assert [len(one.rows) for one in tables] == [1, 1]
    assert "0.100 (0.000 to 0.200; n = 20)" in [cell.text for cell in tables[0].rows[0]]
    without = study.model_copy(update={"evidence": study.evidence.model_copy(update={"effects": None})})
    assert set_effects(without, tables_with(*rows)) == []
