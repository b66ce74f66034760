"""Random sets are like the set beside them in everything that is asked, or there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reasondiff.evidence.sets import TOP_DELTA, TOP_NU, NotTestable, matched_random, profile, quantities, top_sets

PHASES = ("prompt", "think", "answer")


def latents(count: int = 300, seed: int = 0, **columns) -> pd.DataFrame:
    """A latent table of live latents whose rates differ tenfold; `columns` replace."""
    random = np.random.default_rng(seed)
    rates = {f"rate_{phase}": 10 ** random.uniform(-3, -2, count) for phase in PHASES}
    table = pd.DataFrame(
        {"latent": np.arange(count), "tag": "shared", "delta": 0.5, "scaling": "not_specific", **rates}
    )
    table = table.assign(rate=table[list(rates)].mean(axis=1), rate_text=np.nan, nu_error=1.0)
    table["mean_activation"] = random.uniform(0.5, 2, count)
    table["template_share"] = random.uniform(0, 0.2, count)
    return table.assign(**columns)


# ------------------------------------------------------------------------------------------------ what is tested


def test_the_tested_sets_are_live_lean_to_the_reasoning_model_and_are_ordered():
    delta = np.linspace(0.95, 0.05, 10)
    table = latents(10, delta=delta, nu_error=np.arange(10)[::-1] / 100, scaling=["specific"] * 9 + ["undetermined"])
    table.loc[8, "tag"] = "dead"
    found = top_sets(table, 3)
    assert found[TOP_DELTA].tolist() == [9, 7, 6]
    assert found[TOP_NU].tolist() == [7, 6, 5], "specific ones alone"
    assert top_sets(latents(10), 3)[TOP_NU].tolist() == [] == top_sets(latents(10), 3)[TOP_DELTA].tolist()


# ------------------------------------------------------------------------------------------------ random sets


def deviations(table: pd.DataFrame, members, other) -> np.ndarray:
    """Relative deviation of the totals of two sets; of template firings as a share of all firings."""
    whole = profile(table)
    own, theirs = whole[members].sum(0), whole[other].sum(0)
    scale = own.copy()
    scale[-1] = table["rate"].to_numpy()[members].sum()
    return np.abs(theirs - own) / scale


def test_random_sets_match_in_mass_in_the_rate_of_every_phase_and_in_template_firings():
    table, members = latents(), np.arange(20)
    assert quantities(table) == [
        "activation mass", *(f"firing rate in {phase}" for phase in PHASES), "template firings"
    ]  # fmt: skip
    drawn = matched_random(table, members, draws=20, tolerance=0.1, seed=0)
    assert len(drawn) == 20 == len({tuple(sorted(one)) for one in drawn})
    for other in drawn:
        assert len(set(other)) == 20 and not set(other) & set(members)
        assert deviations(table, members, other).max() <= 0.1


def test_without_the_search_random_sets_are_hardly_ever_alike():
    """That the sets match is the search's doing: the test above could not pass by chance."""
    table, members = latents(), np.arange(20)
    random = np.random.default_rng(1)
    others = [random.choice(np.arange(20, 300), 20, replace=False) for _ in range(200)]
    assert np.mean([deviations(table, members, other).max() <= 0.1 for other in others]) < 0.1


def test_dead_latents_are_never_drawn():
    table = latents()
    table.loc[100:, "tag"] = "dead"
    drawn = matched_random(table, np.arange(10), draws=20, tolerance=0.2, seed=0)
    assert max(max(one) for one in drawn) < 100


def test_the_same_seed_draws_the_same_sets_and_another_one_others():
    table, members = latents(), np.arange(20)
    first, again, other = (matched_random(table, members, 20, 0.1, seed) for seed in (0, 0, 1))
    assert [one.tolist() for one in first] == [one.tolist() for one in again] != [one.tolist() for one in other]


def test_a_set_that_nothing_is_like_is_not_testable_and_the_reason_names_the_quantity():
    table = latents()
    table.loc[:9, "rate_think"] = 0.9
    with pytest.raises(
        NotTestable, match=r"0 of 20 matched random sets found: firing rate in think .* allowed are 10%"
    ):
        matched_random(table, np.arange(10), 20, 0.1, seed=0)


def test_too_few_other_latents_are_named_with_their_number():
    with pytest.raises(NotTestable, match="25 other live latents to draw 20 from, expected 40 or more"):
        matched_random(latents(45), np.arange(20), 20, 0.1, seed=0)
