"""The point taken is the sparsest that is good enough, and the reason says so in numbers."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from reasondiff.config import ConfigError, TranscoderGates
from reasondiff.dictionaries.choice import choose_point

NAN = float("nan")
GATES = TranscoderGates(
    ce_increase_nats=0.1,
    ce_increase_wished_nats=0.05,
    recovered_mean=0.8,
    recovered_linear=0.5,
    dead_share=0.1,
    dense_share=0.01,
    all_layers_ce_increase_nats=0.5,
    uninformative_nats=0.02,
)


def point(name, k, latents, recovered, l0=None, ce=0.03, dead=0.04, dense=0.002, margin=0.02, **changed):
    """Rows of a point at layers 0 and 5 and of both. The figures given are the worse layer's, 5; `changed` sets
    columns of the row of both."""
    shared = {"point": name, "k": k, "latents": latents, "l0": float(k if l0 is None else l0), "fvu": 0.2}
    shared |= {"ce_recovered": recovered, "recovered_low": recovered - margin, "recovered_high": recovered + margin}
    worse = {"ce_increase_nats": ce, "dead_share": dead, "dense_share": dense}
    better = {"ce_increase_nats": ce / 2, "dead_share": dead / 2, "dense_share": dense / 2}
    return [
        {**shared, "layer": "0", **better},
        {**shared, "layer": "5", **worse},
        {**shared, "layer": "all", **worse, **changed},
    ]


def choose(*points, named=None, unqualified="stop"):
    choice = choose_point(pd.DataFrame(sum(points, [])), GATES, named, unqualified)
    assert set(choice) == {"point", "how", "qualified", "reason", "front", "refused"}
    assert json.loads(json.dumps(choice)) == choice  # plain values only
    return choice


# ------------------------------------------------------------------------------------------- some point qualifies


def test_of_those_that_qualify_the_smallest_l0_is_taken_though_others_recover_more():
    choice = choose(point("k32", 32, 1024, 0.95), point("k8", 8, 1024, 0.85), point("k16", 16, 1024, 0.92))
    assert (choice["point"], choice["how"], choice["qualified"]) == ("k8", "sweep", True)
    assert choice["front"] == ["k8", "k16", "k32"] and choice["refused"] == {}


def test_the_reason_states_the_numbers():
    choice = choose(point("k8", 8, 1024, 0.85, l0=7.96, ce=0.031), point("k16", 16, 1024, 0.92))
    assert choice["reason"] == (
        "k8 is the sparsest of 2 that qualify: L0 8.0 of 1,024 latents, CE recovered 0.850 [0.830, 0.870]; in the "
        "worst pilot layer CE rises by 0.031 nats, 4.0% of latents are dead, 0.2% of latents are dense"
    )
    alone = choose(point("k8", 8, 1024, 0.85), point("k4", 4, 1024, 0.5, ce=0.2))
    assert alone["reason"].startswith("k8 is the only point that qualifies: L0 8.0")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"ce": 0.1}, "layer 5: CE rises by 0.100 nats (limit 0.1)"),
        ({"dead": 0.15}, "layer 5: 15.0% of latents are dead (limit 0.1)"),
        ({"dense": 0.015}, "layer 5: 1.5% of latents are dense (limit 0.01)"),
    ],
)
def test_one_layer_over_one_limit_disqualifies(fault, why):
    choice = choose(point("k8", 8, 1024, 0.9, **fault), point("k16", 16, 1024, 0.95))
    assert choice["point"] == "k16" and choice["refused"] == {"k8": why} and choice["front"] == ["k16"]


def test_both_layers_over_limits_are_both_named():
    choice = choose(point("k8", 8, 1024, 0.9, ce=0.3, dead=0.15), point("k16", 16, 1024, 0.95))
    assert choice["refused"]["k8"] == (
        "layer 0: CE rises by 0.150 nats (limit 0.1); layer 5: CE rises by 0.300 nats (limit 0.1); "
        "layer 5: 15.0% of latents are dead (limit 0.1)"
    )


@pytest.mark.parametrize("column", ["ce", "dead", "dense"])
def test_an_unknown_figure_never_qualifies(column):
    choice = choose(point("k8", 8, 1024, 0.9, **{column: NAN}), point("k16", 16, 1024, 0.95))
    assert choice["point"] == "k16" and "nan" in choice["refused"]["k8"]


def test_a_point_of_which_nothing_is_known_to_be_recovered_does_not_qualify():
    """Layers that cost nothing when their MLP is gone cannot show that a transcoder is good."""
    choice = choose(point("k8", 8, 1024, 0.9, ce_recovered=NAN), point("k16", 16, 1024, 0.95))
    assert choice["point"] == "k16"
    assert "in no pilot layer does mean ablation cost 0.02 nats" in choice["refused"]["k8"]


def test_a_point_that_needs_more_and_recovers_less_is_not_on_the_front():
    choice = choose(point("k8", 8, 1024, 0.9), point("k16", 16, 1024, 0.85), point("k32", 32, 1024, 0.93))
    assert choice["front"] == ["k8", "k32"]


def test_a_point_that_does_not_qualify_pushes_no_other_off_the_front():
    """k8 recovers more with less, but half of it is dead: k16 is what there is."""
    choice = choose(point("k8", 8, 1024, 0.95, dead=0.5), point("k16", 16, 1024, 0.9))
    assert choice["point"] == "k16" and choice["front"] == ["k16"]


# ------------------------------------------------------------------------------------------- ties


def test_of_one_k_what_lies_within_the_interval_is_a_tie_and_the_smaller_dictionary_wins():
    """0.93 lies within 0.94 +- 0.02: chance may do that."""
    choice = choose(point("x16", 8, 2048, 0.94), point("x8", 8, 1024, 0.93))
    assert choice["point"] == "x8" and choice["front"] == ["x8"]
    assert choice["reason"].endswith(
        "x16, of the same k, recovers 0.940 [0.920, 0.960] with 2,048 latents: no more than chance may do, with more "
        "latents"
    )


def test_of_one_k_what_lies_below_the_interval_is_worse_and_the_larger_dictionary_wins():
    choice = choose(point("x16", 8, 2048, 0.94), point("x8", 8, 1024, 0.91))
    assert choice["point"] == "x16"
    assert choice["reason"].endswith("x8, of the same k, recovers 0.910 [0.890, 0.930] with 1,024 latents: no better")


def test_a_tie_is_with_the_best_not_from_neighbour_to_neighbour():
    """0.925 is within the interval of 0.94 and 0.91 within that of 0.925, but not within that of the best."""
    choice = choose(point("x16", 8, 2048, 0.94), point("x8", 8, 1024, 0.925), point("x4", 8, 512, 0.91))
    assert choice["point"] == "x8"


def test_among_points_of_one_k_a_slightly_smaller_l0_decides_nothing():
    choice = choose(point("x16", 8, 2048, 0.94, l0=8.0), point("x8", 8, 1024, 0.91, l0=7.9))
    assert choice["point"] == "x16"


def test_a_larger_k_is_not_taken_for_what_it_recovers_more_nor_a_smaller_one_left_for_its_latents():
    choice = choose(point("k8", 8, 2048, 0.90), point("k16", 16, 512, 0.905))
    assert choice["point"] == "k8"


def test_without_an_interval_the_best_is_taken():
    """Too few problems for one: equal figures alone are a tie."""
    choice = choose(point("x16", 8, 2048, 0.94, margin=NAN), point("x8", 8, 1024, 0.9399, margin=NAN))
    assert choice["point"] == "x16" and "0.940 (no interval)" in choice["reason"]


# ------------------------------------------------------------------------------------------- none qualifies

NONE = [point("k8", 8, 1024, 0.5, ce=0.3), point("k32", 32, 1024, 0.7, ce=0.15, dead=0.15)]


def test_when_none_qualifies_the_study_stops_and_says_why_and_what_to_do():
    with pytest.raises(ConfigError) as error:
        choose(*NONE)
    message = str(error.value)
    assert "no point of the sweep passes gates.transcoders" in message
    assert "- k8: layer 0: CE rises by 0.150 nats (limit 0.1); layer 5: CE rises by 0.300 nats (limit 0.1)" in message
    assert "- k32: layer 5: CE rises by 0.150 nats (limit 0.1); layer 5: 15.0% of latents are dead" in message
    for way_out in ("more tokens", "`points`", "`point`", "`unqualified: best`"):
        assert way_out in message


def test_when_none_qualifies_the_best_may_be_taken_and_is_called_so():
    choice = choose(*NONE, unqualified="best")
    assert (choice["point"], choice["how"], choice["qualified"]) == ("k32", "best of the unqualified", False)
    assert choice["reason"].startswith("no point qualifies; k32 recovers most CE: L0 32.0 of 1,024 latents, CE rec")
    assert set(choice["refused"]) == {"k8", "k32"} and choice["front"] == ["k8", "k32"]


def test_the_best_is_never_one_of_which_nothing_is_known():
    unknown = point("k4", 4, 1024, 0.99, ce=NAN, ce_recovered=NAN)
    assert choose(unknown, *NONE, unqualified="best")["point"] == "k32"
    choice = choose(unknown, point("k8", 8, 1024, 0.99, ce=0.3, ce_recovered=NAN), unqualified="best")
    assert choice["point"] == "k8" and choice["front"] == []
    assert choice["reason"].startswith("no point qualifies; k8 costs least CE")
    with pytest.raises(ConfigError, match="no point of the sweep passes"):
        choose(unknown, unqualified="best")


# ------------------------------------------------------------------------------------------- named in the config


def test_a_point_named_in_the_config_is_taken_and_the_reason_says_what_the_sweep_would_have_chosen():
    points = point("k8", 8, 1024, 0.85), point("k16", 16, 1024, 0.92)
    choice = choose(*points, named="k16")
    assert (choice["point"], choice["how"], choice["qualified"]) == ("k16", "config", True)
    assert choice["reason"].startswith("k16 is named in the config: L0 16.0 of 1,024 latents, CE recovered 0.920")
    assert "The sweep would have chosen: k8 is the sparsest of 2 that qualify: L0 8.0" in choice["reason"]


@pytest.mark.parametrize("unqualified", ["stop", "best"])
def test_a_named_point_is_taken_even_when_it_does_not_qualify(unqualified):
    choice = choose(*NONE, named="k8", unqualified=unqualified)
    assert (choice["point"], choice["how"], choice["qualified"]) == ("k8", "config", False)
    assert "The sweep would have chosen none, for no point qualifies; k32 recovers most CE" in choice["reason"]
    assert set(choice["refused"]) == {"k8", "k32"}


def test_a_named_point_that_the_sweep_does_not_hold_is_taken_and_not_called_qualified():
    choice = choose(point("k8", 8, 1024, 0.85), named="k64")
    assert choice["point"] == "k64" and not choice["qualified"] and "not in the sweep" in choice["reason"]


@pytest.mark.parametrize("sweep", [None, pd.DataFrame()])
def test_without_a_sweep_the_named_point_is_taken_and_without_a_name_nothing(sweep):
    choice = choose_point(sweep, GATES, "k8", "stop")
    assert (choice["point"], choice["how"], choice["qualified"], choice["front"]) == ("k8", "config", False, [])
    assert "no sweep was run" in choice["reason"]
    with pytest.raises(ConfigError, match="name the `point`"):
        choose_point(sweep, GATES, None, "best")


def test_names_and_layers_of_digits_are_read_as_words(tmp_path):
    """As they come back from a file, where a column of digits is a column of numbers."""
    path = tmp_path / "sweep.tsv"
    pd.DataFrame(point("8", 8, 1024, 0.85) + point("16", 16, 1024, 0.92)).to_csv(path, sep="\t", index=False)
    choice = choose_point(pd.read_csv(path, sep="\t"), GATES, "16", "stop")
    assert choice["point"] == "16" and choice["qualified"] and choice["front"] == ["8", "16"]
