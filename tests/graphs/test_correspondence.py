"""Latents that were renumbered are found again; those of unrelated transcoders are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs import correspondence
from reasondiff.graphs.correspondence import by_index, match, matched

LATENTS, WIDTH = 60, 24


def transcoder(seed: int, latents: int = LATENTS, width: int = WIDTH) -> Transcoder:
    draw = torch.Generator().manual_seed(seed)
    encoder, decoder = (torch.randn(latents, width, generator=draw) for _ in range(2))
    return Transcoder(encoder, torch.zeros(latents), decoder, torch.zeros(width), None, 4, {})


def changed(one: Transcoder, order=None, noise=0.0, scale=1.0, seed=0) -> Transcoder:
    """Its latents in another order, with noise, in other units."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.arange(one.n_latents) if order is None else torch.as_tensor(order)
    noisy = lambda rows: rows[order] + noise * torch.randn(rows[order].shape, generator=draw)  # noqa: E731
    encoder, decoder = noisy(one.encoder) * scale, noisy(one.decoder) / scale
    return Transcoder(encoder, one.encoder_bias[order], decoder, one.decoder_bias, None, 4, {})


def test_renumbered_latents_are_recovered_in_any_unit():
    first, order = transcoder(0), np.random.default_rng(0).permutation(LATENTS)
    second = changed(first, order, noise=0.2, scale=5.0)

    known = matched({3: first}, {3: second})[3]

    assert (order[known.partner] == np.arange(LATENTS)).all()
    assert known.first_norm == pytest.approx(first.decoder.norm(dim=1).numpy())
    assert known.second_norm == pytest.approx(second.decoder.norm(dim=1).numpy())


def test_latents_of_unrelated_transcoders_have_no_partner():
    partner = matched({0: transcoder(0)}, {0: transcoder(1)})[0].partner

    assert (partner == -1).all()


def test_latents_must_both_read_and_write_alike():
    """With equal decoder rows and opposite encoder rows the similarity is 0."""
    first = transcoder(0)
    opposite = Transcoder(-first.encoder, first.encoder_bias, first.decoder, first.decoder_bias, None, 4, {})

    assert (matched({0: first}, {0: opposite})[0].partner == -1).all()


@pytest.mark.parametrize("least", [0.2, 0.5, 0.8])
def test_matching_is_the_best_assignment_of_the_whole_matrix(least, monkeypatch):
    """Couples that contend for one another, in several groups; rows are read a few at a time."""
    monkeypatch.setattr(correspondence, "SIMILARITIES_AT_ONCE", 7 * 50)
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(9, 6, generator=draw).repeat(7, 1)
    rows = [torch.nn.functional.normalize(centres[:n] + 0.6 * torch.randn(n, 6, generator=draw)) for n in (60, 50)]
    similarity = (rows[0] @ rows[1].T).double().numpy()
    worth = np.where(similarity >= least, similarity, 0)
    best = worth[linear_sum_assignment(worth, maximize=True)].sum()

    partner = match(*rows, least)

    taken = partner[partner >= 0]
    assert len(set(taken)) == len(taken) > 10
    chosen = similarity[np.flatnonzero(partner >= 0), taken]
    assert chosen.min() >= least
    assert chosen.sum() == pytest.approx(best)


def test_a_latent_is_not_given_what_is_left_over():
    """Similarities .9, .3 of the first and .3, 0 of the second: the first takes the first, and .0 is no couple."""
    similarities = torch.tensor([[0.9, 0.3], [0.3, 0.0]])

    assert match(torch.eye(2), similarities, 0.2).tolist() == [0, -1]


def test_indices_correspond_where_one_set_began_as_the_other():
    first = transcoder(0)
    second = changed(first, noise=0.5)
    second.decoder[:5], second.encoder[:5] = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(9))

    partner = by_index({0: first}, {0: second})[0].partner

    assert (partner[5:] == np.arange(5, LATENTS)).all()
    assert (partner[:5] == -1).all(), "these have become other latents"


def test_indices_of_another_seed_do_not_correspond(caplog):
    first, order = transcoder(0), np.random.default_rng(0).permutation(LATENTS)

    assert by_index({0: first}, {0: changed(first, order)}) is None
    assert by_index({0: first}, {0: transcoder(1)}) is None
    assert "layer 0: indices do not correspond" in caplog.text


def test_latents_that_write_nothing_have_no_partner():
    first = transcoder(0)
    first.decoder[3] = 0
    second = changed(first)
    second.decoder[7] = 0

    for known in (by_index({0: first}, {0: second}), matched({0: first}, {0: second})):
        assert set(np.flatnonzero(known[0].partner == -1)) == {3, 7}
        assert 3 not in known[0].partner and 7 not in known[0].partner


def test_sets_of_unequal_size_are_matched():
    first = transcoder(0)
    part = changed(first, np.arange(10, 40))

    partner = matched({0: first}, {0: part})[0].partner

    assert (partner[10:40] == np.arange(30)).all() and (partner >= 0).sum() == 30


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"layers \[0\], the other at \[0, 1\]"):
        matched({0: transcoder(0)}, {0: transcoder(0), 1: transcoder(1)})
    with pytest.raises(ValueError, match="latents of width 24 cannot be told among those of 16"):
        by_index({0: transcoder(0)}, {0: transcoder(0, width=16)})
