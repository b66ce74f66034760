"""Which latents come first?"""

from __future__ import annotations

import pandas as pd
import pytest

from reasondiff.latents.ranking import ranked
from reasondiff.report import tables


def latents(rows):
    """(tag, delta, rate, mean activation) of each latent."""
    table = pd.DataFrame(rows, columns=["tag", "delta", "rate", "mean_activation"])
    return table.assign(latent=range(len(table)))


TABLE = latents(
    [
        ("reasoning_only", 0.05, 0.1, 1.0),
        ("reasoning_only", 0.02, 0.1, 1.0),
        ("other", 0.25, 0.1, 1.0),
        ("shared", 0.5, 0.1, 1.0),
        ("shared", 0.5, 0.125, 2.0),
        ("base_only", 0.95, 0.1, 1.0),
        ("dead", 0.01, 0.0, 0.0),
        ("other", 0.35, 0.9, 9.0),
        ("shared", 0.5, 0.25, 1.0),
        ("base_only", 0.99, 0.1, 1.0),
    ]
)


def test_the_lowest_delta_comes_first_on_the_reasoning_side_and_the_highest_on_the_base_side():
    assert list(ranked(TABLE, "reasoning", 5)["latent"]) == [1, 0, 2], "0.35 does not lean, and a dead latent is none"
    assert list(ranked(TABLE, "base", 5)["latent"]) == [9, 5]


def test_shared_latents_are_ranked_by_activation_mass_and_ties_go_to_the_lower_number():
    assert list(ranked(TABLE, "shared", 5)["latent"]) == [4, 8, 3]  # 0.125 x 2 = 0.25 x 1, then 0.1
    assert list(ranked(TABLE.iloc[::-1], "shared", 2)["latent"]) == [4, 8], "whatever the order of the table"


def test_latents_without_tags_are_ranked_by_mass_and_those_that_never_fire_left_out():
    firing = pd.DataFrame(
        {"latent": [0, 1, 2], "firings": [5, 0, 9], "rate": [0.1, 0.0, 0.2], "mean_activation": [1.0, 0.0, 1.0]}
    )
    assert list(ranked(firing, "any", 9)["latent"]) == [2, 0]
    assert list(ranked(TABLE, "any", 1)["latent"]) == [7]


@pytest.mark.parametrize("side", ["reasoning", "base", "shared"])
@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_the_order_is_that_of_the_page(side, rows):
    table = TABLE.assign(auroc_other=0.5, auroc_owner=0.9, scaling="specific")
    assert list(ranked(table, side, rows)["latent"]) == list(tables.ranked(table, side, rows)["latent"])


def test_another_side_is_refused():
    with pytest.raises(ValueError, match="expected one of the sides reasoning, base, shared, any, came 'left'"):
        ranked(TABLE, "left", 1)
