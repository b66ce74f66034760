"""A latent that comes back in every other seed is told from one that does not; correlations are numpy's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import CUTS, WIDTH, Planted
from streams import PlantedStream, made_up_table

from reasondiff.config import Replication
from reasondiff.dictionaries.code import active
from reasondiff.dictionaries.crosscoder import fold
from reasondiff.latents.replication import ReplicaSums, alone, best_partners, directions, siblings, values_at
from reasondiff.latents.table import SiteDescription
from reasondiff.latents.verdicts import NOT_REPLICATED, NOT_TESTABLE, REPLICATED
from reasondiff.models.stream import calibrate

LIMITS = Replication(cosine=0.7, correlation=0.5, seeds=3)
UNITS = torch.eye(WIDTH)


def reading(*units: int, scale=(1.0, 1.0), mirrored: tuple[int, ...] = ()):
    """A crosscoder whose latents read and write one unit of both models each; `mirrored` ones write its opposite."""
    rows = torch.stack([torch.cat([UNITS[unit], UNITS[unit]]) for unit in units])
    signs = torch.tensor([-1.0 if unit in mirrored else 1.0 for unit in units])[:, None]
    zeros = torch.zeros(2 * WIDTH)
    return fold(rows, torch.zeros(len(units)), rows * signs, zeros, torch.tensor(scale), 0.0, 2, {})


@pytest.fixture(scope="module")
def activations():
    """[token, model, unit]: sparse and non-negative, the same in both models."""
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(3000, WIDTH, generator=generator) * (torch.rand(3000, WIDTH, generator=generator) < 0.1)
    return torch.stack([one, one], dim=1)


def sums_of(crosscoders, activations) -> ReplicaSums:
    sums = ReplicaSums(crosscoders)
    for x in activations.split(700):
        sums.add({name: crosscoder.encode(x) for name, crosscoder in crosscoders.items()})
    return sums


FIRINGS = np.array([300, 300, 300])


def columns(crosscoders, activations, name="a", firings=FIRINGS, limits=LIMITS):
    return sums_of(crosscoders, activations).columns(name, firings, limits, min_firings=50)


# ------------------------------------------------------------------------------------------------ parts


def test_partners_are_the_rows_that_point_most_alike_whatever_their_length():
    own, other = directions(reading(0, 1, 2)), directions(reading(2, 0, 5, scale=(1.0, 1.0)))
    partner, cosine = best_partners(own, other)
    assert partner[[0, 2]].tolist() == [1, 0]
    torch.testing.assert_close(cosine, torch.tensor([1.0, 0.0, 1.0]))


def test_scales_of_the_models_do_not_change_directions():
    torch.testing.assert_close(directions(reading(0, 1)), directions(reading(0, 1, scale=(3.0, 3.0))))


def test_values_are_looked_up_where_a_code_is_silent_and_where_it_is_not():
    code = active(torch.tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 0.0, 0.0]]))
    rows, latents = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([2, 0, 1, 0, 2])
    assert values_at(code, rows, latents).tolist() == [3.0, 0.0, 0.0, 4.0, 0.0]
    assert values_at(active(torch.zeros(3, 3)), rows, latents).tolist() == [0.0] * 5


def test_correlations_are_those_of_numpy_over_all_tokens_silent_ones_included(activations):
    crosscoders = {"a": reading(0, 1, 2), "b": reading(2, 0, 7)}
    sums = sums_of(crosscoders, activations)
    dense = {name: crosscoder.encode(activations).dense().numpy() for name, crosscoder in crosscoders.items()}
    partner = sums.found["a", "b"][0]
    expected = [np.corrcoef(dense["a"][:, j], dense["b"][:, partner[j]])[0, 1] for j in range(3)]
    np.testing.assert_allclose(sums.correlation("a", "b").numpy(), expected, atol=1e-6)


def test_paths_that_differ_in_the_seed_alone_belong_together():
    paths = ["x/l1/seed0/c", "x/btk/seed0/c", "x/l1/seed2/c", "y/l1/seed0/c"]
    assert siblings(paths) == [["x/l1/seed0/c", "x/l1/seed2/c"], ["x/btk/seed0/c"], ["y/l1/seed0/c"]]


# ------------------------------------------------------------------------------------------------ verdicts


def test_a_latent_is_replicated_when_every_other_seed_has_it(activations):
    found = columns({"a": reading(0, 1, 2), "b": reading(1, 0, 2), "c": reading(0, 2, 9)}, activations)
    assert found["replicas"].tolist() == [2, 1, 2]
    assert found["replication"].tolist() == [REPLICATED, NOT_REPLICATED, REPLICATED]
    assert found["replica_seeds"].tolist() == [2, 2, 2]
    assert found["replica_correlation"][0] == pytest.approx(1, abs=1e-6)


def test_the_same_direction_fired_elsewhere_is_no_replica(activations):
    """Decoders that agree while encoders read other units."""
    turned = reading(3, 4, 5)
    turned = fold(
        turned.encoder, turned.encoder_bias, reading(0, 1, 2).decoder, torch.zeros(2 * WIDTH), turned.scale, 0.0, 2, {}
    )
    found = columns({"a": reading(0, 1, 2), "b": turned, "c": turned}, activations)
    assert found["replica_cosine"].tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert set(found["replication"]) == {NOT_REPLICATED} and (abs(found["replica_correlation"]) < 0.2).all()


def test_the_same_firing_written_elsewhere_is_no_replica(activations):
    mirrored = reading(0, 1, 2, mirrored=(0, 1, 2))
    found = columns({"a": reading(0, 1, 2), "b": mirrored, "c": mirrored}, activations)
    assert set(found["replication"]) == {NOT_REPLICATED}


def test_with_too_few_seeds_or_firings_nothing_is_said(activations):
    two = columns({"a": reading(0, 1, 2), "b": reading(0, 1, 2)}, activations)
    assert two["replicas"].tolist() == [1, 1, 1] and set(two["replication"]) == {NOT_TESTABLE}
    three = {name: reading(0, 1, 2) for name in "abc"}
    rare = columns(three, activations, firings=np.array([300, 49, 300]))
    assert rare["replication"].tolist() == [REPLICATED, NOT_TESTABLE, REPLICATED]
    single = alone(FIRINGS, LIMITS, 50)
    assert set(single["replication"]) == {NOT_TESTABLE} and np.isnan(single["replica_cosine"]).all()
    assert single["replica_seeds"].tolist() == [0, 0, 0]


def test_chance_alone_gives_a_lower_cosine_than_the_same_dictionary(activations):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(40, 2 * WIDTH, generator=generator)
    made = fold(rows, torch.zeros(40), rows, torch.zeros(2 * WIDTH), torch.ones(2), 0.0, 2, {})
    sums = sums_of({"a": made, "b": made}, activations)
    assert sums.found["a", "b"][1].median() > 0.99 and 0 < sums.random_cosine("a") < 0.6


# ------------------------------------------------------------------------------------------------ in the table


def test_the_latent_table_says_which_latents_came_back():
    stream = PlantedStream(table=made_up_table(200), foreign=(7, 8), planted=Planted(noise=0.3))
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 600)[1]
    paths = [f"layer1/p/seed{seed}/crosscoder.safetensors" for seed in range(3)]
    made = [reading(0, 1, 2), reading(0, 2, 1), reading(2, 0, 6)]
    crosscoders = dict(zip(paths, made, strict=True)) | {"layer1/q/seed0/crosscoder.safetensors": made[0]}
    settings = CUTS.model_copy(update={"tokens": 100_000, "probe_tokens": 1000, "min_firings": 10})
    tables = SiteDescription(stream, 1, statistics, crosscoders, settings, seed=0).run()
    assert tables[paths[0]]["replication"].tolist() == [REPLICATED, NOT_REPLICATED, REPLICATED]
    assert set(tables["layer1/q/seed0/crosscoder.safetensors"]["replication"]) == {NOT_TESTABLE}
    assert tables[paths[0]].attrs["facts"]["replica_random_cosine"] < 1
    assert tables["layer1/q/seed0/crosscoder.safetensors"].attrs["facts"]["replica_random_cosine"] is None
