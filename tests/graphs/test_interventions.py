"""Does a model change as its attribution graph says when a latent is ablated or doubled?"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from small_models import CONTEXT, IDS, LAYERS, TARGET, gated_model, linear_model, relu_model, traced

from reasondiff.config import Interventions
from reasondiff.graphs.graph import ERROR, FEATURE, LOGIT, NO_FEATURE, make_graph, no_graph
from reasondiff.graphs.interventions import (
    COLUMNS,
    MATCHED,
    STRATIFIED,
    Pushes,
    Run,
    choose_latents,
    decoder_pushes,
    intervene,
    matched,
    stratified,
)
from reasondiff.graphs.predictions import Predictions, predict


def settings(**changes):
    return Interventions(**{"features": 40, "quantiles": 4, "matched": 40, "bootstrap": 100, "seed": 0, **changes})


def changed(make_model, **changes):
    """The interventions on a small model, their ablations, and the doublings of the same latents."""
    model = make_model()
    table = intervene(model, traced(model), CONTEXT, settings(**changes), 16)
    return table, table[table["factor"] == 0].reset_index(drop=True), table[table["factor"] == 2].reset_index(drop=True)


# ------------------------------------------------------------------------------------------------ what is measured


def test_where_transcoders_are_the_mlps_the_real_model_frozen_changes_by_the_total_prediction():
    table, _, _ = changed(relu_model)
    assert table["frozen_change"].to_numpy() == pytest.approx(table["predicted_total"], abs=1e-5)
    assert table["predicted_total"].abs().min() > 0
    assert not np.allclose(table["predicted_total"], table["predicted_direct"], atol=0.01)


def test_in_a_linear_model_the_predicted_change_is_what_happens_with_nothing_frozen():
    table, ablated, doubled = changed(linear_model, features=1000)
    assert table["free_change"].to_numpy() == pytest.approx(table["predicted_total"], abs=3e-5)
    assert table["frozen_change"].to_numpy() == pytest.approx(table["free_change"], abs=3e-5)
    assert doubled["free_change"].to_numpy() == pytest.approx(-ablated["free_change"], abs=3e-5)
    assert table["predicted_total"].abs().median() > 0.05


@pytest.mark.parametrize("make_model", [gated_model, relu_model])
def test_the_frozen_model_changes_in_proportion_to_what_is_added_and_the_free_one_does_not(make_model):
    model = make_model()
    graph = traced(model)
    doubled = decoder_pushes(model, graph, graph.nodes_of(FEATURE))
    run = Run.of(model, IDS, TARGET)
    once, back, thrice = np.split(run.changes(doubled.times([1, -1, 3]), True, 64), 3)
    assert back == pytest.approx(-once, abs=1e-5) and thrice == pytest.approx(3 * once, abs=1e-5)
    once, back = np.split(run.changes(doubled.times([1, -1]), False, 64), 2)
    assert np.abs(once + back).max() > 0.05


def test_a_free_ablation_is_what_circuit_tracer_measures_without_freezing():
    model = gated_model()
    graph = traced(model)
    table = intervene(model, graph, CONTEXT, settings(features=12), 5)
    before = demeaned(model(torch.tensor([IDS])))
    for row in table.itertuples():
        change = (row.layer, row.position, row.feature, row.factor * row.activation)
        logits, _ = model.feature_intervention(torch.tensor(IDS), [change], freeze_attention=False)
        assert demeaned(logits) - before == pytest.approx(row.free_change, abs=1e-5)


def test_a_frozen_change_is_the_gradient_through_the_frozen_model():
    """The gradient of the logit with patterns, scales and gates taken as constants, times what is added."""
    model = gated_model()
    table = intervene(model, traced(model), CONTEXT, settings(features=12), 5)
    gradients = frozen_gradients(model)
    for row in table.itertuples():
        added = (row.factor - 1) * row.activation * model.transcoders[row.layer].W_dec[row.feature]
        assert float(gradients[row.layer][row.position] @ added) == pytest.approx(row.frozen_change, abs=1e-5)


def test_with_nothing_but_the_final_norm_downstream_holding_its_scale_is_all_the_difference():
    model = gated_model()
    run = Run.of(model, IDS, TARGET)
    vectors = torch.randn(3, model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    last = Pushes(np.full(3, LAYERS - 1), np.full(3, len(IDS) - 1), vectors)
    assert run.changes(last, True, 8) == pytest.approx(run.written_at_the_end(last), abs=1e-5)
    assert not np.allclose(run.changes(last, False, 8), run.changes(last, True, 8), atol=1e-3)
    elsewhere = replace(last, positions=np.full(3, 2))  # what the last layer writes there is read by nothing
    assert run.changes(elsewhere, False, 8).tolist() == [0.0, 0.0, 0.0]


def test_how_many_run_at_once_changes_nothing():
    model = gated_model()
    graph = traced(model)
    together, apart = (intervene(model, graph, CONTEXT, settings(features=6), size) for size in (64, 1))
    for name in ("frozen_change", "free_change"):
        assert together[name].to_numpy() == pytest.approx(apart[name], abs=1e-5)
    assert together.drop(columns=["frozen_change", "free_change"]).equals(
        apart.drop(columns=["frozen_change", "free_change"])
    )


def test_the_model_is_left_as_it_was():
    model = gated_model()
    before = model(torch.tensor([IDS]))
    intervene(model, traced(model), CONTEXT, settings(features=6), 8)
    assert torch.equal(model(torch.tensor([IDS])), before)


def demeaned(logits):
    last = logits[0, -1].detach().double()
    return float(last[TARGET] - last.mean())


def frozen_gradients(model):
    """By layer, of the demeaned target logit by each MLP output: [position, unit]."""
    constants = [name for name in model.hook_dict if name.endswith(("hook_pattern", "hook_scale", "old_mlp.hook_pre"))]
    hooks = [(name, lambda value, hook: value.detach()) for name in constants]
    neurons, written = {}, []

    def own_output(value, hook):
        """The MLP's: the replacement model lets gradients pass through the transcoder's skip instead."""
        output = neurons["now"] @ model.blocks[len(written)].mlp.old_mlp.W_out
        written.append(output if output.requires_grad else output.requires_grad_())
        written[-1].retain_grad()
        return written[-1]

    for layer in range(LAYERS):
        hooks.append((f"blocks.{layer}.mlp.old_mlp.hook_post", lambda value, hook: neurons.update(now=value)))
        hooks.append((f"blocks.{layer}.{model.feature_output_hook}", own_output))
    logits = model.run_with_hooks(torch.tensor([IDS]), fwd_hooks=hooks)
    (logits[0, -1, TARGET] - logits[0, -1].mean()).backward()
    return [output.grad[0] for output in written]


# ------------------------------------------------------------------------------------------------ baselines


def test_baselines_are_the_size_of_what_is_written_and_its_effect_on_the_logit_where_it_is_read():
    model = gated_model()
    table = intervene(model, traced(model), CONTEXT, settings(features=8), 8)
    residual = model(torch.tensor([IDS]), stop_at_layer=LAYERS)[0, -1].detach()
    scale = (residual.pow(2).mean() + model.cfg.eps).sqrt()
    direction = model.W_U[:, TARGET] - model.W_U.mean(1)
    for row in table.itertuples():
        decoder = model.transcoders[row.layer].W_dec[row.feature]
        assert row.baseline_norm == pytest.approx(row.activation * float(decoder.norm()), rel=1e-5)
        logit = (row.factor - 1) * row.activation * float((decoder / scale * model.ln_final.w) @ direction)
        assert row.baseline_logit == pytest.approx(logit, abs=1e-5)


# ------------------------------------------------------------------------------------------------ which latents


def test_each_quantile_of_the_predicted_size_gives_equally_many():
    effect = np.random.default_rng(0).permutation(np.arange(40.0))
    drawn, stratum = stratified(effect, 10, 4, np.random.default_rng(1))
    # quantile 3 holds the sizes 30 to 39; of 10 draws the strongest two quantiles get the one that is left over
    assert [int((stratum == number).sum()) for number in (3, 2, 1, 0)] == [3, 3, 2, 2]
    assert (effect[drawn] // 10).tolist() == stratum.tolist()
    assert len(set(drawn)) == 10


def test_draws_within_a_quantile_are_by_lot():
    effect = np.arange(40.0)
    draws = {tuple(np.sort(stratified(effect, 4, 4, np.random.default_rng(seed))[0])) for seed in range(20)}
    assert len(draws) > 10
    one, same = (stratified(effect, 4, 4, np.random.default_rng(3))[0].tolist() for _ in range(2))
    assert one == same


def test_the_sample_is_by_the_size_of_the_total_effect_whatever_its_sign():
    graph = firing([(0, 0, 1.0)] * 8)
    effects = np.array([-8.0, 1.0, 7.0, -2.0, 6.0, 3.0, -5.0, 4.0])
    predictions = Predictions(graph.nodes_of(FEATURE), np.zeros(8), effects)
    found = choose_latents(graph, predictions, settings(features=8, quantiles=2, matched=0))
    assert set(effects[found.nodes[found.stratum == 1]]) == {-8.0, 7.0, 6.0, -5.0}
    assert set(effects[found.nodes[found.stratum == 0]]) == {1.0, -2.0, 3.0, 4.0}


def test_a_partner_is_of_the_same_layer_and_position_class_and_nearest_in_activation():
    # layer, position (2 is the target's), activation; of the last five, only the fourth is alike in all three
    graph = firing([(1, 2, 4.0), (0, 2, 4.0), (1, 1, 4.0), (1, 2, 5.0), (1, 2, 9.0), (1, 0, 4.0)], positions=3)
    nodes = {
        (int(graph.layer[node]), int(graph.position[node]), float(graph.activation[node])): node
        for node in graph.nodes_of(FEATURE)
    }
    asked = np.array([nodes[1, 2, 4.0]])
    assert matched(graph, asked, np.setdiff1d(graph.nodes_of(FEATURE), asked)).tolist() == [nodes[1, 2, 5.0]]
    earlier = np.array([nodes[1, 1, 4.0]])  # positions 0 and 1 are alike: both before the target's
    assert matched(graph, earlier, np.setdiff1d(graph.nodes_of(FEATURE), earlier)).tolist() == [nodes[1, 0, 4.0]]


def test_partners_are_together_as_near_as_can_be():
    rng = np.random.default_rng(0)
    graph = firing([(0, 0, float(size)) for size in rng.gamma(2.0, size=9)])
    latents = graph.nodes_of(FEATURE)
    asked, pool = latents[:3], latents[3:]
    size = np.log(graph.activation)
    best = min(
        permutations(pool, 3), key=lambda some: sum(abs(size[a] - size[b]) for a, b in zip(asked, some, strict=True))
    )
    assert set(matched(graph, asked, pool)) == set(best)


def test_those_that_find_no_partner_have_none():
    graph = firing([(0, 0, 1.0), (0, 0, 2.0), (1, 0, 1.0)])
    latents = graph.nodes_of(FEATURE)
    assert matched(graph, latents[[0, 2]], latents[[1]]).tolist() == [latents[1]]
    assert matched(graph, latents, latents[:0]).tolist() == []


def test_partners_are_drawn_for_as_many_as_asked_and_no_latent_twice():
    model = gated_model()
    graph = traced(model)
    found = choose_latents(graph, predict(graph, TARGET), settings(features=12, matched=5))
    assert (found.chosen == STRATIFIED).sum() == 12 and (found.chosen == MATCHED).sum() == 5
    assert len(set(found.nodes)) == 17
    assert (found.stratum[found.chosen == MATCHED] == -1).all()
    table = intervene(model, graph, CONTEXT, settings(features=12, matched=5), 64)
    assert len(table) == 17 * 2 and list(table) == COLUMNS
    assert graph.feature[found.nodes].tolist() * 2 == table["feature"].tolist()


def test_of_a_graph_with_fewer_latents_all_that_reach_the_logit_are_taken_and_none_is_left_to_match():
    table, ablated, _ = changed(gated_model, features=1000)
    graph = traced(gated_model())
    # what the last layer writes at an earlier position is read by nothing
    reaching = (graph.kind == FEATURE) & ((graph.layer < LAYERS - 1) | (graph.position == len(IDS) - 1))
    assert ablated["feature"].sort_values().tolist() == sorted(graph.feature[reaching])
    assert set(table["chosen"]) == {STRATIFIED}


# ------------------------------------------------------------------------------------------------ odd cases


@pytest.mark.parametrize("features, graph", [(4, "none"), (4, "no latents"), (4, "no path"), (0, "whole")])
def test_without_latents_there_is_a_table_without_rows(features, graph):
    model = gated_model()
    graphs = {"none": no_graph((), {}, "no answer"), "no latents": firing([]), "whole": traced(model)}
    graphs["no path"] = pathless(firing([(0, 0, 1.0)]))
    table = intervene(model, graphs[graph], CONTEXT, settings(features=features), 8)
    assert len(table) == 0 and list(table) == COLUMNS


def test_logits_that_are_not_finite_are_refused():
    model = gated_model()
    graph = traced(model)
    model.transcoders[1].W_dec.data[:] = torch.inf
    with pytest.raises(ValueError, match="finite logits"):
        intervene(model, graph, CONTEXT, settings(), 8)


def test_a_graph_of_another_context_is_refused():
    model = gated_model()
    with pytest.raises(ValueError, match="5 positions, the context 6"):
        intervene(model, traced(model, IDS[:5]), CONTEXT, settings(), 8)


def pathless(graph):
    """The same without its edges."""
    return graph.part(np.ones(graph.n_nodes, dtype=bool), np.zeros(graph.n_edges, dtype=bool))


def firing(latents, positions=1):
    """A graph of latents (layer, position, activation) and one error, each with an edge of 1 to the logit."""
    layer, position, activation = np.array(latents, dtype=np.float64).reshape(-1, 3).T
    count = len(latents)
    return make_graph(
        tuple("abc"[:positions]),
        {},
        kind=[FEATURE] * count + [ERROR, LOGIT],
        layer=[*layer, 0, 5],
        position=[*position, 0, positions - 1],
        feature=[*range(count), NO_FEATURE, TARGET],
        activation=[*activation, np.nan, np.nan],
        influence=np.full(count + 2, np.nan),
        probability=np.full(count + 2, np.nan),
        source=np.arange(count + 1),
        target=np.full(count + 1, count + 1),
        weight=np.ones(count + 1),
    )
