"""Firing rates, histograms and shares of traces are what counting by hand gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reasondiff.latents.firing import BINS, HISTOGRAM_EDGES, FiringTally
from reasondiff.latents.neighbours import nearest_neighbours
from reasondiff.latents.strongest import Firings
from reasondiff.text.rendering import PHASE_CODE
from reasondiff.text.tokens import TokenTable

PHASES_OF_DOCUMENT = ["prompt", "think", "think", "answer", "template"]
NO_NEIGHBOUR = (np.array([-1, -1, -1]), np.full(3, np.nan, np.float32))

# three documents of five tokens: correct, incorrect, correct
TABLE = TokenTable(
    ids=np.arange(15, dtype=np.int32),
    phases=np.array([PHASE_CODE[phase] for phase in PHASES_OF_DOCUMENT] * 3, dtype=np.uint8),
    starts=np.array([0, 5, 10, 15], dtype=np.int64),
    part=np.zeros(3, np.uint8),
    problem=np.arange(3, dtype=np.int32),
    correct=np.array([1, 0, 1], dtype=np.int8),
    source=np.zeros(3, np.uint8),
    bytes=np.ones(3, np.int32),
)
# latent 0 fires on think tokens of documents 0 and 1, latent 1 on the prompt and once in document 2's answer; 2 never
LATENTS = torch.tensor([0, 0, 0, 1, 1, 1])
TOKENS = torch.tensor([1, 2, 6, 0, 5, 13])
VALUES = torch.tensor([1.0, 2.0, 0.5, 4.0, 4.0, 1e-4])


def tally_of(*groups: tuple[list[int], list[int]]) -> FiringTally:
    """A tally of the firings with these numbers and of these tokens, group by group."""
    tally = FiringTally(3, TABLE, "cpu")
    for numbers, tokens in groups:
        read = torch.tensor(tokens, dtype=torch.int64)
        chosen = torch.tensor(numbers, dtype=torch.int64)
        firings = Firings(LATENTS[chosen], TOKENS[chosen], TOKENS[chosen] // 5, VALUES[chosen])
        tally.add(firings, read, read // 5)
    return tally


@pytest.fixture(params=["at once", "by document"])
def tally(request):
    """Token 4 of each document is masked."""
    unmasked = [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]]
    if request.param == "at once":
        return tally_of((list(range(6)), sum(unmasked, [])))
    return tally_of(([0, 1, 3], unmasked[0]), ([2, 4], unmasked[1]), ([5], unmasked[2]))


def test_rates_by_phase(tally):
    frame = tally.table(3, *NO_NEIGHBOUR)
    assert frame["layer"].tolist() == [3] * 3 and frame["latent"].tolist() == [0, 1, 2]
    assert frame["firings"].tolist() == [3, 3, 0]
    assert frame["rate"].tolist() == [3 / 12, 3 / 12, 0]
    assert frame["rate_think"].tolist() == [3 / 6, 0, 0]  # 6 unmasked think tokens
    assert frame["rate_prompt"].tolist() == [0, 2 / 3, 0]
    assert frame["rate_answer"].tolist() == [0, 1 / 3, 0]
    assert frame["rate_template"].isna().all() and frame["rate_text"].isna().all()  # none was read


def test_correct_and_incorrect_traces(tally):
    frame = tally.table(0, *NO_NEIGHBOUR)
    # documents 0 and 2 are correct: 6 tokens of think and answer, 2 traces; document 1 is not: 3 tokens, 1 trace
    assert frame["rate_correct"].tolist() == [2 / 6, 1 / 6, 0]
    assert frame["rate_incorrect"].tolist() == [1 / 3, 0, 0]  # latent 1 fires there in the prompt only
    assert frame["traces_correct"].tolist() == [1 / 2, 1 / 2, 0]  # two firings in document 0 are one trace
    assert frame["traces_incorrect"].tolist() == [1, 0, 0]


def test_activations_and_their_histogram(tally):
    frame = tally.table(0, *NO_NEIGHBOUR)
    assert frame["mean_activation"].tolist() == pytest.approx([3.5 / 3, 8.0001 / 3, 0])
    assert frame["max_activation"].tolist() == [2, 4, 0]
    for latent, values in enumerate([[1.0, 2.0, 0.5], [4.0, 4.0, 1e-4], []]):
        wanted = np.zeros(BINS, dtype=int)
        for value in values:
            wanted[sum(value >= edge for edge in HISTOGRAM_EDGES)] += 1  # bin 0 lies below the first edge
        assert frame["histogram"][latent].tolist() == wanted.tolist()
    assert frame["histogram"][1][0] == 1


def test_edges_are_eight_to_a_factor_of_ten():
    assert HISTOGRAM_EDGES[0] == pytest.approx(1e-3) and HISTOGRAM_EDGES[-1] == pytest.approx(1e3)
    np.testing.assert_allclose(HISTOGRAM_EDGES[8:] / HISTOGRAM_EDGES[:-8], 10, rtol=1e-5)
    tally = FiringTally(1, TABLE, "cpu")
    tokens = torch.arange(3)
    values = torch.tensor([2e3, 5e-4, float(HISTOGRAM_EDGES[4])])  # above all, below all, on an edge
    tally.add(Firings(torch.zeros(3, dtype=torch.int64), tokens, tokens // 5, values), tokens, tokens // 5)
    assert tally.histogram[0].nonzero().squeeze(1).tolist() == [0, 5, BINS - 1]


def test_the_facts_are_what_the_rates_are_shares_of(tally):
    facts = tally.facts()
    assert facts["tokens"] == 12 and facts["tokens_think"] == 6 and facts["tokens_template"] == 0
    assert (facts["tokens_correct"], facts["tokens_incorrect"]) == (6, 3)
    assert (facts["traces_correct"], facts["traces_incorrect"]) == (2, 1)
    assert len(facts["histogram_edges"]) == BINS - 1


def test_the_main_phase_is_that_of_most_firings(tally):
    assert tally.main_phase()[:2].tolist() == [PHASE_CODE["think"], PHASE_CODE["prompt"]]


def test_without_correct_traces_there_is_no_rate_of_them():
    frame = tally_of(([2], [5, 6, 7, 8])).table(0, *NO_NEIGHBOUR)
    assert frame["rate_correct"].isna().all() and frame["traces_correct"].isna().all()
    assert frame["rate_incorrect"].tolist() == [1 / 3, 0, 0]


def test_nothing_read_is_nothing_known():
    frame = tally_of(([], [])).table(0, *NO_NEIGHBOUR)
    assert frame["firings"].tolist() == [0] * 3 and frame["rate"].isna().all()


# ------------------------------------------------------------------------------------------- neighbours


def test_the_neighbour_points_the_same_way_and_is_alive(monkeypatch):
    directions = torch.tensor([[1.0, 0], [3, 0.3], [-5, 0], [9, 0.1], [0, 0]])  # latent 3 is dead
    live = np.array([True, True, True, False, True])
    for at_once in (1, 2, 100):
        monkeypatch.setattr("reasondiff.latents.neighbours.LATENTS_AT_ONCE", at_once)
        neighbour, cosine = nearest_neighbours(directions, live)
        assert neighbour[[0, 1, 3]].tolist() == [1, 0, -1]
        assert cosine[0] == pytest.approx(1 / math.sqrt(1.01)) and np.isnan(cosine[3])
        assert cosine[2] == 0 and neighbour[2] == 4  # the opposite direction is the farthest


def test_a_latent_alone_has_no_neighbour():
    neighbour, cosine = nearest_neighbours(torch.eye(3), np.array([False, True, False]))
    assert neighbour.tolist() == [-1] * 3 and np.isnan(cosine).all()
