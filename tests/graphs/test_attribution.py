from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_tracer import attribute

from reasondiff.graphs.attribution import Logits, Rows, attributed, explained_logits, folded, share_skip, whole_graph
from reasondiff.graphs.frozen import FrozenContext
from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT
from reasondiff.graphs.replacement import open_replacement

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")  # circuit-tracer's own

IDS = torch.tensor([300, 7, 41, 300, 12, 99, 230, 7, 18, 55, 260, 31])
TARGET = 17


@pytest.fixture(scope="module")
def model(small_models, trained_transcoders, small_tokenizer):
    return open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", None)


@pytest.fixture(scope="module")
def context(model):
    return FrozenContext(model, IDS)


def named(model, context, runners_up=0):
    return explained_logits(model, context.traced.logits[0, -1], TARGET, runners_up)


class MadeUp(FrozenContext):
    """A context of two positions and two blocks with these latents, in which `rows` give all columns: the logit's row
    first, then each latent's. Without skips the logit reads `direct`."""

    def __init__(self, latents, rows, direct=None):
        self.latents, self.n_positions, self.n_blocks, self.n_columns = torch.tensor(latents), 2, 2, rows.shape[1]
        self.rows, self.direct = rows, direct

    def into_latents(self, chosen):
        return self.rows[1:][chosen]

    def into_logits(self, directions, skips):
        return self.rows[:1] if skips else self.direct


# ------------------------------------------------------------------------------------------------ logits


def test_the_target_comes_first_then_the_most_probable_others(model, context):
    logits = context.traced.logits[0, -1]
    found = explained_logits(model, logits, TARGET, 3)
    best = [one for one in logits.argsort(descending=True).tolist() if one != TARGET][:3]
    assert found.ids.tolist() == [TARGET, *best]
    assert found.probability.tolist() == pytest.approx(logits.softmax(0)[found.ids].tolist(), rel=1e-4)
    top = int(logits.argmax())
    assert explained_logits(model, logits, top, 1).ids.tolist() == [top, best[1] if best[0] == top else best[0]]


def test_directions_read_the_logit_over_the_mean_logit(model, context):
    seen = {}
    with model.hooks(fwd_hooks=[("unembed.hook_pre", lambda value, hook: seen.update(end=value[0, -1]))]):
        logits = model(IDS[None])[0, -1]
    found = explained_logits(model, logits, TARGET, 2)
    wanted = logits[found.ids] - logits.mean()
    assert torch.allclose(found.direction @ seen["end"], wanted, atol=1e-4)


# ------------------------------------------------------------------------------------------------ which latents


@pytest.mark.parametrize(("max_features", "batch_size"), [(40, 7), (100, 64), (25, 25)])
def test_the_latents_are_those_that_circuit_tracer_would_choose(max_features, batch_size, model, context):
    theirs = attribute(
        IDS, model, attribution_targets=torch.tensor([TARGET]), batch_size=batch_size,
        max_feature_nodes=max_features, update_interval=1,
    )  # fmt: skip
    rows = attributed(context, named(model, context), max_features, batch_size)
    assert rows.chosen.tolist() == theirs.selected_features.tolist()
    count = len(rows.chosen)
    assert torch.allclose(rows.into_latents[:, rows.chosen], theirs.adjacency_matrix[:count, :count], atol=1e-5)
    assert torch.allclose(rows.into_logits[:, rows.chosen], theirs.adjacency_matrix[-1:, :count], atol=1e-5)


@pytest.mark.parametrize("max_features", [None, 10_000])
def test_all_active_latents_are_included_where_there_is_room(max_features, model, context):
    rows = attributed(context, named(model, context), max_features, 16)
    assert rows.chosen.tolist() == list(range(len(context.latents))) and rows.included == 1.0


def test_latents_that_act_through_others_are_found_when_those_have_a_row():
    # Columns: latents 0, 1 (block 0) and 2 (block 1), then four errors and two embeddings. The logit reads 2 (weight 6)
    # and 1 (weight 2), of 8 in all; 2 reads 0 alone. At first 0 has no influence, after 2 has a row, 6/8.
    rows = torch.zeros(4, 9)
    rows[0, [1, 2]] = torch.tensor([2.0, 6.0])
    rows[3, 0] = -5.0
    context = MadeUp([[0, 0, 4], [0, 1, 5], [1, 1, 6]], rows)
    only = Logits(torch.tensor([TARGET]), torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, 1))
    assert attributed(context, only, 2, 1).chosen.tolist() == [0, 2]
    assert attributed(context, only, 2, 2).chosen.tolist() == [1, 2]
    # 2 and 0 have 6/8 each, 1 has 2/8: the two that are chosen have 12/8 of 14/8
    assert attributed(context, only, 2, 1).included == pytest.approx(12 / 14)
    # without 2's row nothing is known of 0: the only one chosen has 6/8 of (6/8 + 2/8) + what came with its row
    assert attributed(context, only, 1, 1).included == pytest.approx(6 / 14)


def test_more_latents_include_more(model, context):
    shares = [attributed(context, named(model, context), count, 8).included for count in (8, 40, 120)]
    assert 0 < shares[0] < shares[1] < shares[2] < 1


# ------------------------------------------------------------------------------------------------ edges


def test_what_left_out_latents_write_counts_as_error_of_their_place(model, context):
    rows = attributed(context, named(model, context), 40, 8)
    kept = folded(context, rows.chosen, rows.into_latents)
    assert torch.allclose(kept.sum(1), rows.into_latents.sum(1), atol=1e-4)
    active, errors = len(context.latents), 3 * len(IDS)
    by_place = rows.into_latents[:, active : active + errors].clone()
    for column, (layer, position, _) in enumerate(context.latents.tolist()):
        if column not in rows.chosen.tolist():
            by_place[:, layer * len(IDS) + position] += rows.into_latents[:, column]
    assert torch.allclose(kept[:, 40 : 40 + errors], by_place, atol=1e-5)


def test_the_skips_part_of_an_edge_is_weighed_against_the_rest():
    # Two latents and one error: the logit reads 4, -2 and 2, which without skips would be 2, -1 and 1. So of each
    # latent's edge half is direct and half through skips, which are half of 6/8.
    rows = torch.zeros(3, 2 + 4 + 2)
    rows[0, [0, 1, 2]] = torch.tensor([4.0, -2.0, 2.0])
    context = MadeUp([[0, 0, 4], [1, 1, 6]], rows, direct=rows[:1] / 2)
    only = Logits(torch.tensor([TARGET]), torch.tensor([0.3], dtype=torch.float64), torch.zeros(1, 1))
    whole = Rows(torch.tensor([0, 1]), rows[:1], rows[1:], 1.0)
    assert share_skip(context, whole, only) == pytest.approx(0.5 * 6 / 8)
    # an edge of 4 that is 6 without skips has |-2| through them: 2 / (2 + 6)
    context.direct = torch.tensor([[6.0, -2.0, 1.0, 0, 0, 0, 0, 0]])
    assert share_skip(context, whole, only) == pytest.approx(2 / 8 * 4 / 8)
    # and one of 4 that is -4 without has 8 through them: 8 / (8 + 4)
    context.direct = torch.tensor([[-4.0, -2.0, 1.0, 0, 0, 0, 0, 0]])
    assert share_skip(context, whole, only) == pytest.approx(8 / 12 * 4 / 8)


def test_skips_carry_nothing_where_there_are_none(small_models, small_tokenizer, trained_transcoders):
    from dataclasses import replace

    without = {layer: replace(one, skip=None) for layer, one in trained_transcoders.items()}
    model = open_replacement(small_models["qwen2"], without, small_tokenizer, "cpu", None)
    context = FrozenContext(model, IDS)
    rows = attributed(context, named(model, context), None, 64)
    assert share_skip(context, rows, named(model, context)) == 0.0


def test_the_graph_holds_every_node_and_edge_in_its_place(model, context):
    logits = named(model, context, runners_up=2)
    rows = attributed(context, logits, 50, 16)
    tokens = tuple(str(one) for one in IDS.tolist())
    graph = whole_graph(context, rows, logits, IDS.tolist(), tokens)
    counts = {kind: len(graph.nodes_of(kind)) for kind in (FEATURE, ERROR, EMBEDDING, LOGIT)}
    assert counts == {FEATURE: 50, ERROR: 3 * len(IDS), EMBEDDING: len(IDS), LOGIT: 3}
    assert graph.feature[graph.nodes_of(EMBEDDING)].tolist() == IDS.tolist()
    matrix = np.zeros((graph.n_nodes, graph.n_nodes))
    matrix[graph.target, graph.source] = graph.weight
    kept = folded(context, rows.chosen, torch.cat([rows.into_latents, rows.into_logits])).numpy()
    where = {
        (int(layer), int(position), int(feature)): node
        for node, (layer, position, feature) in enumerate(zip(graph.layer, graph.position, graph.feature, strict=True))
    }
    columns = [where[tuple(one)] for one in context.latents[rows.chosen].tolist()]
    columns += [where[layer, position, -1] for layer in range(3) for position in range(len(IDS))]
    columns += [where[-1, position, token] for position, token in enumerate(IDS.tolist())]
    targets = columns[:50] + [where[3, len(IDS) - 1, token] for token in logits.ids.tolist()]
    assert np.array_equal(matrix[np.ix_(targets, columns)], kept)
    assert np.count_nonzero(matrix) == np.count_nonzero(kept) == graph.n_edges
    values = {
        tuple(one): value
        for one, value in zip(context.latents.tolist(), context.traced.activation_matrix.values().tolist(), strict=True)
    }
    for node in graph.nodes_of(FEATURE):
        key = (int(graph.layer[node]), int(graph.position[node]), int(graph.feature[node]))
        assert graph.activation[node] == pytest.approx(values[key])
    assert graph.probability[targets[50:]].tolist() == pytest.approx(logits.probability.tolist())


def test_edges_that_are_not_finite_are_refused(model, context):
    rows = attributed(context, named(model, context), 5, 5)
    rows.into_latents[2, 40] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        whole_graph(context, rows, named(model, context), IDS.tolist(), ("",) * len(IDS))


def test_values_that_are_no_numbers_do_not_go_round_for_ever():
    rows = torch.full((4, 9), torch.nan)
    context = MadeUp([[0, 0, 4], [0, 1, 5], [1, 1, 6]], rows)
    only = Logits(torch.tensor([TARGET]), torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, 1))
    assert len(attributed(context, only, 2, 1).chosen) == 2
