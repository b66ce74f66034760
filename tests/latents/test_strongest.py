"""What is kept while firings stream by is exactly what sorting all of them would give."""

from __future__ import annotations

import random

import pytest
import torch
from plain_lots import MASK, plain_lot, plain_scramble

from reasondiff.dictionaries.code import SparseCode
from reasondiff.latents.strongest import (
    NEVER,
    Firings,
    Keeper,
    Shortlist,
    best_of_documents,
    firings_of,
    lots,
    pack_firings,
    places,
    scramble,
    unpack_firings,
)

LATENTS, STRONGEST, SAMPLED, SEED, LAYER = 7, 3, 5, 11, 4


def made_up_documents(seed: int, documents: int = 30) -> list[list[tuple[int, int, float]]]:
    """For each document its firings (token, latent, value), in the order of tokens. Values are few, so that many tie;
    latent 0 fires on every token, latent 6 never."""
    draw, token, found = random.Random(seed), 0, []
    for _ in range(documents):
        own = []
        for _ in range(draw.randint(1, 9)):
            chances = {latent: 0.1 * latent for latent in range(1, LATENTS - 1)}
            fires = [0, *(latent for latent, chance in chances.items() if draw.random() < chance)]
            draw.shuffle(fires)  # a TopK code has the latents of a token in no order
            own += [(token, latent, draw.randint(1, 4) / 2) for latent in fires]
            token += 1
        found.append(own)
    return found


def as_code(documents: list, numbers: list[int]) -> Firings:
    """These documents as a batch, through a code."""
    entries = [(number, *entry) for number in numbers for entry in documents[number]]
    tokens = list(dict.fromkeys((number, token) for number, token, _, _ in entries))
    rows = {token: row for row, (_, token) in enumerate(tokens)}
    code = SparseCode(
        torch.tensor([rows[token] for _, token, _, _ in entries]),
        torch.tensor([latent for _, _, latent, _ in entries]),
        torch.tensor([value for *_, value in entries]),
        len(rows),
        LATENTS,
    )
    return firings_of(code, torch.tensor([t for _, t in tokens]), torch.tensor([d for d, _ in tokens]))


def shortlist_of(documents: list, batches: list[list[int]]) -> Shortlist:
    shortlist = Shortlist(LATENTS, STRONGEST, SAMPLED, SEED, LAYER, "cpu")
    for numbers in batches:
        shortlist.add(as_code(documents, numbers))
    return shortlist


def as_lists(keeper: Keeper) -> dict[int, list[tuple[int, float]]]:
    """{latent: [(token, value), ...]} as it is kept."""
    latents, entries = keeper.kept()
    values, tokens = unpack_firings(entries)
    found = {}
    for latent, token, value in zip(latents.tolist(), tokens.tolist(), values.tolist(), strict=True):
        found.setdefault(latent, []).append((token, value))
    return found


def plain_strongest(documents: list) -> dict[int, list[tuple[int, float]]]:
    found = {}
    for own in documents:
        best = {}
        for token, latent, value in own:
            if latent not in best or value > best[latent][1]:  # of equal values the earlier token stays
                best[latent] = (token, value)
        for latent, firing in best.items():
            found.setdefault(latent, []).append(firing)
    return {latent: sorted(found[latent], key=lambda f: (-f[1], f[0]))[:STRONGEST] for latent in found}


def plain_sample(documents: list) -> dict[int, list[tuple[int, float]]]:
    found = {}
    for own in documents:
        for token, latent, value in own:
            found.setdefault(latent, []).append((token, value))
    key = lambda latent: lambda firing: plain_lot(SEED, LAYER, latent, firing[0])  # noqa: E731
    return {latent: sorted(found[latent], key=key(latent))[:SAMPLED] for latent in found}


ONE_BY_ONE = [[number] for number in range(30)]
SHUFFLED = [random.Random(5).sample(range(30), 30)]
THREES = [list(range(first, first + 3)) for first in range(27, -1, -3)]


# ------------------------------------------------------------------------------------------- lots and packing


def test_scrambled_numbers_are_those_of_splitmix64():
    assert scramble(torch.tensor(0)).item() & MASK == 0xE220A8397B1DCDAF  # its first output for the seed 0
    numbers = [0, 1, -1, 2**62, -(2**63), 12345]
    assert scramble(torch.tensor(numbers)).tolist() == [plain_scramble(number) for number in numbers]


def test_lots_differ_by_seed_layer_latent_and_token():
    latents, tokens = torch.arange(50)[:, None], torch.arange(80)[None]
    drawn = lots(1, 2, latents, tokens)
    assert drawn[3, 7].item() == plain_lot(1, 2, 3, 7)
    assert len(drawn.unique()) == 50 * 80
    assert not (drawn == lots(2, 2, latents, tokens)).any() and not (drawn == lots(1, 3, latents, tokens)).any()


def test_lots_are_uniform():
    """Over 4000 draws of the smallest of ten, each is drawn 400 times, give or take five standard deviations (95)."""
    winners = lots(0, 0, torch.arange(4000)[:, None], torch.arange(10)[None]).argmin(dim=1)
    assert (torch.bincount(winners, minlength=10) - 400).abs().max() < 95


def test_a_firing_comes_back_from_its_number():
    values = torch.tensor([1e-30, 0.5, 0.5, 3.25, 1e30])
    tokens = torch.tensor([2**32 - 1, 9, 8, 0, 77])
    entries = pack_firings(values, tokens)
    assert entries.sort().indices.tolist() == [0, 1, 2, 3, 4]  # of equal values the earlier token ranks higher
    assert (entries > 0).all()
    back = unpack_firings(entries)
    assert torch.equal(back[0], values) and torch.equal(back[1], tokens)


# ------------------------------------------------------------------------------------------- the shortlist


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batches", [ONE_BY_ONE, SHUFFLED, THREES])
def test_the_strongest_are_those_of_sorting_everything(seed, batches):
    documents = made_up_documents(seed)
    assert as_lists(shortlist_of(documents, batches).strongest) == plain_strongest(documents)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batches", [ONE_BY_ONE, SHUFFLED, THREES])
def test_the_sample_is_the_smallest_lots_whatever_the_batches(seed, batches):
    documents = made_up_documents(seed)
    assert as_lists(shortlist_of(documents, batches).sample) == plain_sample(documents)


def test_a_document_gives_one_of_the_strongest_and_the_earlier_token_of_those_that_tie():
    documents = [[(0, 1, 2.0), (1, 1, 3.0), (2, 1, 3.0)], [(3, 1, 3.0), (4, 1, 1.0)]]
    assert as_lists(shortlist_of(documents, [[1], [0]]).strongest) == {1: [(1, 3.0), (3, 3.0)]}


def test_latents_that_never_fire_are_not_kept():
    kept = shortlist_of(made_up_documents(0), ONE_BY_ONE)
    assert 6 not in as_lists(kept.strongest) and 6 not in as_lists(kept.sample)
    assert as_lists(Shortlist(LATENTS, STRONGEST, SAMPLED, SEED, LAYER, "cpu").strongest) == {}


def test_a_batch_without_firings_changes_nothing():
    nothing = torch.zeros(0, dtype=torch.int64)
    kept = shortlist_of(made_up_documents(0), ONE_BY_ONE)
    before = as_lists(kept.strongest), as_lists(kept.sample)
    kept.add(Firings(nothing, nothing, nothing, torch.zeros(0)))
    assert (as_lists(kept.strongest), as_lists(kept.sample)) == before


def test_a_uniform_sample_has_no_preference_for_strong_or_early_firings():
    """Latent 0 fires 1000 times with rising values; 400 seeds draw 5 each. The mean place of a uniform draw is 499.5
    with a standard error of 289 / sqrt(2000) = 6.5."""
    tokens = torch.arange(1000)
    firings = Firings(torch.zeros_like(tokens), tokens, tokens, tokens.float() + 1)
    drawn = []
    for seed in range(400):
        shortlist = Shortlist(1, 1, 5, seed, 0, "cpu")
        shortlist.add(firings)
        drawn += [token for token, _ in as_lists(shortlist.sample)[0]]
    assert len(drawn) == 2000 and abs(sum(drawn) / 2000 - 499.5) < 26


# ------------------------------------------------------------------------------------------- memory


def test_what_is_held_does_not_grow_with_the_tokens_read():
    keeper, batch = Keeper(LATENTS, 4, lambda _, entries: entries, "cpu"), 20
    draw = torch.Generator().manual_seed(0)
    held = []
    for number in range(300):
        latents = torch.randint(LATENTS, (batch,), generator=draw).sort().values
        values = torch.rand(batch, generator=draw) + 0.1 * number  # each batch beats the ones before
        keeper.offer(latents, pack_firings(values, torch.arange(batch) + batch * number))
        held.append(len(keeper.latents) + sum(len(latents) for latents, _ in keeper.waiting))
    assert max(held) <= 2 * LATENTS * 4 and max(held[-50:]) <= max(held[:50])


def test_firings_below_the_floor_are_turned_away_at_once():
    keeper = Keeper(1, 2, lambda _, entries: entries, "cpu")
    tokens = torch.arange(4)
    entries = pack_firings(torch.tensor([4.0, 3.0, 2.0, 1.0]), tokens)
    keeper.offer(torch.zeros(4, dtype=torch.int64), entries)
    assert keeper.floor.item() == entries[1].item()
    later = pack_firings(torch.tensor([3.0, 3.0, 3.5]), torch.tensor([9, 0, 9]))
    assert keeper.promising(torch.zeros(3, dtype=torch.int64), later).tolist() == [False, True, True]


def test_a_latent_without_enough_firings_has_no_floor():
    keeper = Keeper(2, 3, lambda _, entries: entries, "cpu")
    keeper.offer(torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7]))
    keeper.kept()
    assert keeper.floor.tolist() == [NEVER, NEVER]


# ------------------------------------------------------------------------------------------- small parts


def test_places_count_from_0_in_each_group():
    assert places(torch.tensor([2, 2, 2, 5, 7, 7])).tolist() == [0, 1, 2, 0, 0, 1]


def test_the_best_of_each_latent_and_document():
    latents, documents = torch.tensor([0, 0, 0, 3, 3]), torch.tensor([8, 8, 2, 2, 2])
    firings = Firings(latents, torch.arange(5), documents, torch.ones(5))
    found = best_of_documents(firings, torch.tensor([4, 9, 1, 6, 5]))
    assert [part.tolist() for part in found] == [[0, 0, 3], [9, 1, 6]]
