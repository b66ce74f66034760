"""How far an observed count is from a null's, by hand and by identity."""

import numpy as np
import pytest

from reasondiff.motifs.census import TRIADS
from reasondiff.motifs.conserved import determined, relations
from reasondiff.motifs.counting import FAMILIES, FAMILY, MOTIF, motif_counts
from reasondiff.motifs.ensembles import draw_ensemble
from reasondiff.motifs.nulls import CYCLIC, NULLS
from reasondiff.motifs.statistics import deviation, effective_samples, rank, tie_broken_p, two_sided_p
from reasondiff.statistics import adjusted


def column(*counts):
    return np.array(counts, dtype=np.int64)[:, None]


def one(observed, counts, min_states=2):
    return deviation(np.array([observed]), counts, np.arange(len(counts)), min_states)


def test_effects_by_hand():
    # mean 2, sd sqrt((1 + 0 + 1) / 2) = 1
    found = one(5, column(1, 2, 3))
    assert (found.mean[0], found.sd[0], found.states[0], found.z[0]) == (2, 1, 3, 3)
    assert found.log_ratio[0] == pytest.approx(np.log(5.5 / 2.5))
    assert found.delta[0] == pytest.approx((5 - 2) / (5 + 2 + 4))


def test_no_z_is_given_of_too_few_distinct_counts():
    counts = column(*range(10), *range(10))
    assert np.isnan(one(12, counts, min_states=11).z[0])
    assert np.isfinite(one(12, counts, min_states=10).z[0])
    assert np.isnan(one(12, column(4, 4, 4)).z[0]) and one(12, column(4, 4, 4)).states[0] == 1


def test_p_counts_the_observed_graph_and_both_sides():
    counts = column(*range(1, 20))  # 19 graphs
    assert two_sided_p(np.array([25]), counts)[0] == pytest.approx(2 * 1 / 20)
    assert two_sided_p(np.array([0]), counts)[0] == pytest.approx(2 * 1 / 20)
    assert two_sided_p(np.array([19]), counts)[0] == pytest.approx(2 * 2 / 20)  # the tie counts against it
    assert two_sided_p(np.array([10]), counts)[0] == 1


def test_ties_are_broken_between_the_shares_above_and_not_below():
    counts, rng = column(1, 2, 2, 3), np.random.default_rng(0)
    p = np.array([tie_broken_p(np.array([2]), counts, rng)[0] for _ in range(500)])
    assert 0.2 <= p.min() < 0.22 and 0.78 < p.max() <= 0.8  # (1 to 1 + 3) of 5
    constant = np.array([tie_broken_p(np.array([7]), column(7, 7, 7), rng)[0] for _ in range(500)])
    assert constant.mean() == pytest.approx(0.5, abs=0.06) and two_sided_p(np.array([7]), column(7, 7, 7))[0] == 1


def test_false_discoveries_are_controlled_over_the_tests_that_were_made():
    # of three tests: 3 x 0.01 / 1, 3 x 0.02 / 2, 3 x 0.5 / 3; the one not made does not count
    assert adjusted(np.array([0.02, np.nan, 0.5, 0.01])) == pytest.approx([0.03, np.nan, 0.5, 0.03], nan_ok=True)
    assert np.isnan(adjusted(np.array([np.nan]))).all()


def test_rank_counts_the_directions_in_which_counts_vary():
    rng = np.random.default_rng(0)
    free = rng.integers(0, 1000, (60, 2))
    counts = np.stack([free[:, 0], 5000 - 3 * free[:, 0], free[:, 1], free.sum(axis=1), np.full(60, 9)], axis=1)
    assert rank(counts) == 2
    assert rank(np.full((5, 3), 4)) == 0


def test_effective_samples_of_an_autoregressive_chain_are_as_in_theory():
    # autocorrelation r^t: n (1 - r) / (1 + r)
    rng, n, r = np.random.default_rng(0), 20_000, 0.8
    steps = rng.normal(size=n)
    for step in range(1, n):
        steps[step] += r * steps[step - 1]
    counts = np.stack([np.round(1000 * steps), rng.integers(0, 1000, n), np.zeros(n)], axis=1).astype(np.int64)
    one_chain, apart = np.zeros(n, dtype=np.int64), np.arange(n)
    found = effective_samples(counts, one_chain)
    assert found[0] == pytest.approx(n * (1 - r) / (1 + r), rel=0.15)
    assert found[1] > 0.85 * n and np.isnan(found[2])
    assert effective_samples(counts, apart)[:2].tolist() == [n, n]


@pytest.fixture(scope="module")
def drawn(random_network, motif_settings):
    """Many graphs of each null, of a network in which every motif can vary."""
    network = random_network(7, layers=5, width=6, positions=3, density=0.8)
    settings = motif_settings(samples=300)

    def make(null, max_gap):
        def count(edges):
            return motif_counts(network, edges, max_gap, null not in CYCLIC)

        return network, draw_ensemble(network, null, count, settings, 0, 1).counts

    return make


@pytest.mark.parametrize("max_gap", [3, 9])
@pytest.mark.parametrize("null", NULLS)
def test_counts_vary_in_as_many_directions_as_are_not_determined(drawn, null, max_gap):
    network, counts = drawn(null, max_gap)
    for family in FAMILIES:
        ours = counts[:, FAMILY == family]
        free = ~determined(network, null, family, max_gap) & (ours.std(axis=0) > 0)  # cliques of three may never arise
        assert rank(ours) == rank(ours[:, free]) == free.sum(), family


@pytest.mark.parametrize("null", NULLS)
def test_the_sums_that_a_null_keeps_are_the_same_in_all_of_its_graphs(drawn, null):
    network, counts = drawn(null, 9)
    for family in FAMILIES:
        sums = counts[:, FAMILY == family] @ relations(network, null, family, 9).T
        assert np.ptp(sums, axis=0) == pytest.approx(0, abs=1e-6), family


@pytest.mark.parametrize("null", ["layer_pair_config", "layer_pair_config_signs", "typed"])
def test_with_degrees_kept_on_an_acyclic_graph_untyped_triads_are_one_figure(drawn, null):
    network, counts = drawn(null, 5)
    four = counts[:, [TRIADS.index(name) for name in ("021D", "021U", "021C", "030T")]]
    assert rank(four) == 1
    free = np.array(TRIADS)[~determined(network, null, "triad", 5)]
    assert free.tolist() == ["030T"]


def test_typed_triads_and_signed_patterns_say_more(drawn):
    network, _ = drawn("typed", 3)
    free = {family: ~determined(network, "typed", family, 3) for family in FAMILIES}
    assert [name[:4] for name in MOTIF[FAMILY == "typed"][free["typed"]]] == ["030T"] * 4
    assert set(MOTIF[FAMILY == "signed"][~free["signed"]]) == {
        "residual_self_loop_positive", "residual_self_loop_negative",
    }  # fmt: skip
    every_gap = ~determined(network, "typed", "signed", 9)
    assert set(MOTIF[FAMILY == "signed"][free["signed"] & ~every_gap]) == {
        "feedforward_amplification", "feedforward_damping",
    }  # fmt: skip
