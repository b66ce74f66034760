"""A sparse code says the same as the dense one, on either side of the density where the formulas change."""

from __future__ import annotations

import pytest
import torch

from reasondiff.dictionaries.code import (
    DENSE_ABOVE,
    ByLatent,
    SparseCode,
    _group_size,
    active,
    decode,
    entry_products,
    largest,
    only,
    per_latent_sum,
    stable_order,
    topk,
    topk_of_any_sign,
)

TOKENS, LATENTS, OUT = 37, 50, 11


def activations(density: float, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(TOKENS, LATENTS, generator=generator, dtype=dtype) + 0.1
    return values * (torch.rand(TOKENS, LATENTS, generator=generator) < density)


@pytest.fixture(params=[0.0, 0.02, 0.07, 0.3, 1.0])
def dense(request):
    return activations(request.param)


@pytest.fixture
def matrices():
    generator = torch.Generator().manual_seed(1)
    make = lambda rows: torch.randn(rows, OUT, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(TOKENS), make(LATENTS)


def test_both_sides_of_the_density_limit_are_tested():
    densities = [active(activations(share)).density() for share in (0.07, 0.3)]
    assert densities[0] < DENSE_ABOVE < densities[1]


def test_a_code_gives_its_dense_form_back(dense):
    code = active(dense)
    assert torch.equal(code.dense(), dense)
    assert code.l0() == pytest.approx(float((dense > 0).sum(1).double().mean()))
    assert code.density() == pytest.approx(float((dense > 0).double().mean()))


def test_decoding_equals_the_dense_product(dense, matrices):
    _, dictionary = matrices
    assert torch.allclose(decode(active(dense), dictionary), dense @ dictionary)


def test_entry_products_equal_the_dense_product_at_the_active_entries(dense, matrices):
    per_token, per_latent = matrices
    whole = per_token @ per_latent.T
    assert torch.allclose(entry_products(active(dense), per_token, per_latent), whole[dense > 0])


def test_entry_products_take_a_slice_of_a_wider_matrix(matrices):
    """Latent scaling passes one model's part of [token, model, unit]."""
    per_token, per_latent = matrices
    dense = activations(0.05)
    wide = torch.stack([per_token, per_token + 1], dim=1)
    found = entry_products(active(dense), wide[:, 1], per_latent)
    assert torch.allclose(found, ((per_token + 1) @ per_latent.T)[dense > 0])


def test_sums_by_latent_equal_the_dense_product(dense, matrices):
    per_token, _ = matrices
    code = active(dense)
    by_latent = ByLatent(code)
    assert torch.allclose(by_latent.sum(code.values, per_token), dense.T @ per_token)
    others = torch.arange(len(code), dtype=torch.float64)
    assert torch.allclose(by_latent.sum(others, per_token), code.with_values(others).dense().T @ per_token)
    wide = torch.stack([per_token, per_token + 1], dim=1)
    assert torch.allclose(by_latent.sum(code.values, wide[:, 1]), dense.T @ (per_token + 1))
    assert torch.allclose(per_latent_sum(code, code.values), dense.sum(0))


def test_a_threshold_may_differ_from_latent_to_latent():
    dense = activations(0.5)
    bounds = torch.linspace(0, 1, LATENTS, dtype=torch.float64)
    assert torch.equal(active(dense, bounds).dense(), torch.where(dense > bounds, dense, 0.0))


def test_the_code_of_some_tokens_equals_encoding_them_alone():
    dense = activations(0.2)
    kept = torch.arange(TOKENS) % 3 != 1
    found, expected = active(dense).on_rows(kept), active(dense[kept])
    assert found.n_rows == expected.n_rows
    assert torch.equal(found.dense(), expected.dense()) and torch.equal(found.rows, expected.rows)
    assert len(active(dense).on_rows(torch.zeros(TOKENS, dtype=torch.bool))) == 0


@pytest.mark.parametrize("below", [40, 2**16, 2**16 + 1, 3 * 2**16 + 7])
def test_the_radix_order_is_thestable_order(below):
    keys = torch.randint(below, (5000,), generator=torch.Generator().manual_seed(2))
    keys[:2] = torch.tensor([below - 1, 0])
    assert torch.equal(stable_order(keys, below), keys.argsort(stable=True))


# ------------------------------------------------------------------------------------------------ largest


def best_by_sorting(dense, weights, count):
    """The oracle: rank every score of the batch."""
    scores = (dense * weights).flatten()
    order = scores.argsort(descending=True, stable=True)[:count]
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[order] = True
    return (chosen & (scores > 0)).view_as(dense)


@pytest.mark.parametrize("hint", [0.0, 1e-9, 0.3, 0.9, 1.1, 1.5, 100.0])
@pytest.mark.parametrize("count", [1, 60, 400])
def test_the_largest_scores_are_kept_whatever_the_hint(hint, count):
    generator = torch.Generator().manual_seed(3)
    responses = torch.randn(TOKENS, LATENTS, generator=generator)  # before the ReLU: half are negative
    weights = torch.rand(LATENTS, generator=generator) + 0.2
    weights[7] = 0.0  # a latent without a decoder has no score
    code, smallest = largest(responses, weights, count, hint)
    expected = best_by_sorting(responses, weights, count)
    assert len(code) == count
    assert torch.equal(code.dense() > 0, expected)
    assert torch.equal(code.values, responses[expected])
    assert smallest == pytest.approx(float((responses * weights)[expected].min()))


@pytest.mark.parametrize("hint", [0.0, 0.5, 10.0])
def test_with_fewer_positive_scores_than_asked_all_are_kept(hint):
    dense = activations(0.1, torch.float32)
    code, smallest = largest(dense, torch.ones(LATENTS), 10_000, hint)
    assert torch.equal(code.dense(), dense)
    assert smallest == float(dense[dense > 0].min())


def test_without_any_positive_score_the_code_is_empty():
    code, smallest = largest(-torch.ones(4, 5), torch.ones(5), 3, hint=0.2)
    assert len(code) == 0 and smallest == 0.0 and code.dense().shape == (4, 5)


@pytest.mark.parametrize("hint", [0.0, 1.0, 1.2])
def test_of_equal_scores_at_the_edge_the_first_are_kept(hint):
    dense = torch.ones(3, 4)
    dense[1, 2] = 2.0
    code, smallest = largest(dense, torch.ones(4), 5, hint)
    # the 2, then the first four of eleven ones: row 0
    assert torch.equal(code.dense(), torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 0], [0, 0, 0, 0]]))
    assert smallest == 1.0


def test_an_empty_code_decodes_to_zero(matrices):
    per_token, dictionary = matrices
    empty = SparseCode(*(torch.zeros(0, dtype=torch.long),) * 2, torch.zeros(0, dtype=torch.float64), TOKENS, LATENTS)
    assert not decode(empty, dictionary).any()
    assert not ByLatent(empty).sum(empty.values, per_token).any()
    assert len(entry_products(empty, per_token, dictionary)) == 0


# ------------------------------------------------------------------------------------------------ top k


def of_rows(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


SHAPES = [(1, 1), (7, 3), (64, 5), (97, 4), (96, 1), (1024, 8), (4096, 32), (6144, 6144), (48, 60)]  # (columns, k)


def test_ranking_by_groups_and_ranking_whole_rows_are_both_tested():
    groups = [_group_size(columns, min(k, columns)) > 1 for columns, k in SHAPES]
    assert any(groups) and not all(groups)


@pytest.mark.parametrize(("columns", "k"), SHAPES)
def test_the_top_k_are_those_that_the_framework_ranks_first(columns, k):
    responses = of_rows(40, columns)
    code, best = topk_of_any_sign(responses, k), responses.topk(min(k, columns))
    expected = torch.zeros_like(responses).scatter(1, best.indices, best.values)
    assert torch.equal(code.dense(), expected) and code.l0() == min(k, columns)
    assert torch.equal(code.rows, code.rows.sort().values)  # ordered by token, as every code
    assert torch.equal(topk(responses, k).dense(), expected.clamp_min(0))


def test_the_top_k_of_two_rows_by_hand():
    responses = torch.tensor([[3.0, -1.0, 2.0, 1.0, 0.0], [-1.0, -2.0, -3.0, 5.0, 0.0]])
    assert torch.equal(topk_of_any_sign(responses, 3).dense(), torch.tensor([[3.0, 0, 2, 1, 0], [-1, 0, 0, 5, 0]]))
    assert topk_of_any_sign(responses, 3).l0() == 3  # -1 and 0 are entries
    assert torch.equal(topk(responses, 3).dense(), torch.tensor([[3.0, 0, 2, 1, 0], [0, 0, 0, 5, 0]]))


def test_values_of_zero_in_the_top_k_are_not_active():
    responses = torch.tensor([[0.0, 0.0, 4.0, -1.0], [0.0, -1.0, -1.0, 0.0]])
    code = topk(responses, 3)
    assert code.latents.tolist() == [2] and code.l0() == 0.5
    assert topk_of_any_sign(responses, 3).l0() == 3


def test_of_equal_responses_k_are_taken_and_none_twice():
    """Constant rows, and rows of few distinct values, by groups."""
    for responses in (torch.ones(5, 4096), of_rows(5, 4096).round()):
        code = topk_of_any_sign(responses, 32)
        pairs = set(zip(code.rows.tolist(), code.latents.tolist(), strict=True))
        assert len(pairs) == len(code) == 5 * 32
        assert torch.equal(code.values, responses[code.rows, code.latents])
        smallest = responses.topk(32).values[:, -1]
        assert torch.equal(code.values.view(5, 32).amin(1), smallest)


def test_infinite_responses_are_ranked_too():
    responses = of_rows(3, 4096)
    responses[0, 17], responses[1, 18], responses[2] = torch.inf, -torch.inf, -torch.inf
    code = topk(responses, 32)
    assert code.dense()[0, 17] == torch.inf and not (code.latents[code.rows == 1] == 18).any()
    assert not (code.rows == 2).any()


def test_the_marked_entries_of_a_code_alone():
    dense = activations(0.3)
    code = active(dense)
    kept = only(code, code.values > 0.5)
    assert torch.equal(kept.dense(), torch.where(dense > 0.5, dense, 0.0))
    assert (kept.n_rows, kept.n_latents) == (TOKENS, LATENTS)


def test_a_top_k_code_takes_part_in_sums_as_any_other(matrices):
    """Its latents are in no order within a token, in those of other codes they ascend."""
    per_token, dictionary = matrices
    code = topk(of_rows(TOKENS, LATENTS).double(), 3)
    dense = code.dense()
    assert code.density() < DENSE_ABOVE
    assert torch.allclose(decode(code, dictionary), dense @ dictionary)
    assert torch.allclose(ByLatent(code).sum(code.values, per_token), dense.T @ per_token)
    expected = (per_token @ dictionary.T)[code.rows, code.latents]
    assert torch.allclose(entry_products(code, per_token, dictionary), expected)
