"""Are latents counted as docs/methods.md §4 says, and is every count beside its control?"""

from __future__ import annotations

import math

import pandas as pd
import pytest

from reasondiff.config import Pair
from reasondiff.latents.counts import against_nulls, count_latents, newcombe, wilson
from reasondiff.latents.verdicts import ABSENT, IN_BOTH, UNDETERMINED, WRITTEN_DIFFERENTLY, verdicts
from reasondiff.statistics import Estimate

PAIRS = {
    "real": Pair(models=("a", "b"), tokenizer="t", texts=("x",), role="effect", control="null"),
    "null": Pair(models=("a", "c"), tokenizer="t", texts=("x",), role="control", control=None),
}


def latents(pair: str, rows: list[tuple], seed: int = 0) -> pd.DataFrame:
    """(tag, delta, scaling, AUROC of the other, template) of each latent of one dictionary."""
    table = pd.DataFrame(rows, columns=["tag", "delta", "scaling", "auroc_other", "template"])
    return table.assign(
        auroc_owner=0.99, replication="not_testable", pair=pair, text="x", layer=3, point="p", seed=seed
    )


def of(counts: pd.DataFrame, pair: str, group: str) -> pd.Series:
    return counts[(counts["pair"] == pair) & (counts["group"] == group)].iloc[0]


REAL = [
    *[("reasoning_only", 0.02, "specific", 0.6, False)] * 3,
    *[("reasoning_only", 0.05, "specific", 0.9, False)] * 2,
    ("reasoning_only", 0.05, "not_specific", 0.6, False),
    ("reasoning_only", 0.05, "undetermined", math.nan, False),
    ("reasoning_only", 0.05, "specific", 0.6, True),
    ("base_only", 0.97, "specific", 0.6, False),
    ("other", 0.25, "not_specific", 0.9, False),
    *[("shared", 0.5, "not_specific", 0.9, False)] * 10,
    *[("dead", 0.5, "undetermined", math.nan, False)] * 4,
]
NULL = [("reasoning_only", 0.05, "specific", 0.6, False), *[("shared", 0.5, "not_specific", 0.9, False)] * 19]


@pytest.fixture(scope="module")
def counts() -> pd.DataFrame:
    return count_latents(pd.concat([latents("real", REAL), latents("null", NULL)]), PAIRS)


def test_dead_latents_are_in_no_group_and_not_in_the_share(counts):
    row = of(counts, "real", "reasoning_only")
    assert (row["latents"], row["live"], row["dead"], row["count"]) == (24, 20, 4, 8)
    assert row["share"] == pytest.approx(8 / 20)


def test_latents_that_came_back_are_counted_and_those_that_cannot_be_told_are_in_neither_group():
    verdicts_of = ["replicated", "replicated", "not_replicated", *["not_testable"] * 21]
    found = count_latents(latents("null", REAL).assign(replication=verdicts_of), PAIRS)
    assert [of(found, "null", f"reasoning_only.{name}")["count"] for name in ("replicated", "not_replicated")] == [2, 1]
    assert of(found, "null", "reasoning_leaning.replicated")["count"] == 2
    assert of(found, "null", "base_only.replicated")["count"] == 0


def test_the_tags_of_live_latents_add_up(counts):
    tags = counts[(counts["pair"] == "real") & counts["group"].isin(["reasoning_only", "base_only", "shared", "other"])]
    assert tags["count"].sum() == 20


def test_template_latents_and_the_verdicts_of_scaling_make_up_the_exclusive_ones(counts):
    parts = {kind: of(counts, "real", f"reasoning_only.{kind}")["count"] for kind in ("template", "specific")}
    parts |= {kind: of(counts, "real", f"reasoning_only.{kind}")["count"] for kind in ("not_specific", "undetermined")}
    assert parts == {"template": 1, "specific": 5, "not_specific": 1, "undetermined": 1}


def test_exclusive_latents_lean_as_well(counts):
    assert of(counts, "real", "reasoning_leaning")["count"] == 9
    assert of(counts, "real", "base_leaning")["count"] == 1


def test_only_what_is_specific_and_not_decodable_counts_as_absent(counts):
    assert of(counts, "real", "reasoning_only.absent")["count"] == 4  # three and the one flagged as template


def test_every_count_stands_beside_its_control(counts):
    row = of(counts, "real", "reasoning_only")
    assert (row["control_count"], row["control_live"]) == (1, 20)
    assert row["excess"] == pytest.approx(8 / 20 - 1 / 20)
    assert row["excess_low"] > 0


def test_a_control_has_no_excess(counts):
    assert math.isnan(of(counts, "null", "reasoning_only")["excess"])


def test_a_seed_without_its_control_dictionary_has_no_excess():
    found = count_latents(pd.concat([latents("real", REAL, seed=1), latents("null", NULL, seed=0)]), PAIRS)
    assert math.isnan(of(found, "real", "reasoning_only")["excess"])
    assert of(found, "real", "reasoning_only")["count"] == 8


def test_no_latent_tables_give_an_empty_table():
    found = count_latents(pd.DataFrame(columns=["pair", "text", "layer", "point", "seed"]), PAIRS)
    assert len(found) == 0 and "excess_low" in found


def test_a_dictionary_without_live_latents_is_counted_as_zero_of_zero():
    found = count_latents(latents("real", [("dead", 0.5, "undetermined", math.nan, False)] * 3), PAIRS)
    row = of(found, "real", "reasoning_only")
    assert (row["count"], row["live"]) == (0, 0) and math.isnan(row["share"])


def test_the_wilson_interval_of_ten_in_a_hundred():
    # (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.96, p = .1, n = 100
    estimate = wilson(10, 100)
    assert (estimate.low, estimate.high) == pytest.approx((0.0552, 0.1744), abs=5e-5)


def test_few_latents_get_no_interval():
    assert math.isnan(wilson(2, 5).low) and not math.isnan(wilson(2, 6).low)


def test_the_excess_interval_is_newcombes():
    # Newcombe 1998, table II: 56/70 against 48/80, method 10: 0.2 (0.0524 to 0.3339)
    excess = newcombe(wilson(56, 70), wilson(48, 80))
    assert (excess.value, excess.low, excess.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_the_excess_over_a_share_without_interval_has_none():
    excess = newcombe(wilson(3, 50), Estimate(0.5, math.nan, math.nan, 2))
    assert excess.value == pytest.approx(3 / 50 - 0.5) and math.isnan(excess.low) and math.isnan(excess.high)


def test_what_a_latent_may_be_called():
    table = latents("real", [
        ("reasoning_only", 0.0, "specific", 0.74, False),
        ("reasoning_only", 0.0, "specific", 0.75, False),
        ("reasoning_only", 0.0, "not_specific", 0.5, False),
        ("reasoning_only", 0.0, "undetermined", 0.5, False),
        ("shared", 0.5, "specific", 0.5, False),
    ])  # fmt: skip
    assert list(verdicts(table)) == [ABSENT, WRITTEN_DIFFERENTLY, WRITTEN_DIFFERENTLY, UNDETERMINED, IN_BOTH]


def test_a_probe_that_fails_even_for_the_owner_says_nothing():
    table = latents("real", [("reasoning_only", 0.0, "specific", 0.5, False)]).assign(auroc_owner=0.6)
    assert list(verdicts(table)) == [UNDETERMINED]


# ------------------------------------------------------------------------------------------------ several nulls

SEVERAL = {
    **PAIRS,
    "real": Pair(
        models=("a", "b"), tokenizer="t", texts=("x",), role="effect", control="null",
        nulls={"format": "shuffled", "rotated": "turned"},
    ),
    "shuffled": Pair(models=("a", "d"), tokenizer="t", texts=("x",), role="control", control=None),
    "turned": Pair(models=("a", "e"), tokenizer="t", texts=("x",), role="control", control=None),
}  # fmt: skip
SHARED = ("shared", 0.5, "not_specific", 0.9, False)


def beside(group: str, **tables: list[tuple]) -> pd.DataFrame:
    """The rows of one group, by null."""
    found = against_nulls(pd.concat([latents(pair, rows) for pair, rows in tables.items()]), SEVERAL)
    return found[found["group"] == group].set_index("null")


def test_every_null_has_its_own_excess_and_the_control_is_the_first():
    rows = beside("reasoning_only", real=REAL, null=NULL, shuffled=REAL, turned=[SHARED] * 20)
    assert list(rows.index) == ["training", "format", "rotated"]
    assert rows["excess"].tolist() == pytest.approx([8 / 20 - 1 / 20, 0, 8 / 20])
    assert rows["null_pair"].tolist() == ["null", "shuffled", "turned"]
    assert rows.loc["rotated", "excess_low"] > 0 > rows.loc["format", "excess_low"]
    assert (rows["status"] == "tested").all()


def test_a_null_without_the_same_dictionary_is_not_testable_and_has_no_figure():
    rows = beside("reasoning_only", real=REAL, null=NULL)
    assert rows["status"].tolist()[0] == "tested"
    assert all(status.startswith("not testable: the null pair has no dictionary") for status in rows["status"][1:])
    assert rows["excess"][1:].isna().all() and rows["null_count"][1:].isna().all()


def test_a_null_of_too_few_live_latents_is_not_testable():
    rows = beside("shared", real=REAL, null=NULL, shuffled=[SHARED] * 5)
    assert rows.loc["format", "status"] == "not testable: 5 live latents, expected 6 or more"
    assert math.isnan(rows.loc["format", "excess"]) and rows.loc["format", "null_count"] == 5


def test_controls_themselves_are_not_compared():
    found = against_nulls(pd.concat([latents("null", NULL), latents("shuffled", NULL)]), SEVERAL)
    assert found.empty and "excess_low" in found
