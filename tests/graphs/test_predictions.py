"""By how much does a graph say that the target's logit changes when a latent is ablated or doubled?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import IDS, LAYERS, TARGET, gated_model, traced

from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph
from reasondiff.graphs.predictions import predict


def chain(activations=(2.0, 4.0), weights=(0.5, 3.0, 1.0, 7.0), other_logit=False):
    """Latent 0 of layer 0 -> latent 1 of layer 1 -> the logit of token 9, and latent 0 -> that logit.

    `weights`: of embedding -> latent 0, latent 0 -> latent 1, latent 0 -> logit, latent 1 -> logit.
    """
    edges = [(0, 1, weights[0]), (1, 2, weights[1]), (1, 3, weights[2]), (2, 3, weights[3])]
    edges += [(1, 4, 50.0), (2, 4, 60.0)] if other_logit else []
    source, target, weight = zip(*edges, strict=True)
    nodes = 5 if other_logit else 4
    return make_graph(
        ("a", "b"),
        {},
        kind=[EMBEDDING, FEATURE, FEATURE, LOGIT, LOGIT][:nodes],
        layer=[-1, 0, 1, 2, 2][:nodes],
        position=[0, 1, 1, 1, 1][:nodes],
        feature=[5, 0, 1, 9, 8][:nodes],
        activation=[np.nan, *activations, np.nan, np.nan][:nodes],
        influence=np.full(nodes, np.nan),
        probability=np.full(nodes, np.nan),
        source=source,
        target=target,
        weight=weight,
    )


def test_all_paths_to_the_target_are_summed_each_latent_responding_by_a_share_of_its_activation():
    found = predict(chain(), 9)
    # doubling latent 0 adds 1 to the logit itself, and 3 to latent 1, which fires with 4: 3/4 of what it writes, 7
    assert found.direct.tolist() == [1.0, 7.0]
    assert found.total.tolist() == [1.0 + 3.0 / 4.0 * 7.0, 7.0]


def test_paths_to_another_logit_do_not_count():
    found = predict(chain(other_logit=True), 9)
    assert found.total.tolist() == [6.25, 7.0] and found.direct.tolist() == [1.0, 7.0]
    other = predict(chain(other_logit=True), 8)
    assert other.total.tolist() == [50.0 + 3.0 / 4.0 * 60.0, 60.0] and other.direct.tolist() == [50.0, 60.0]


def test_long_paths_are_summed_as_a_matrix_inverse_sums_them():
    graph = traced(gated_model())
    found = predict(graph, TARGET)
    # A[t, s] / activation of t, logits as they are: the effects of all paths are the logit's row of (1 - A)^-1
    size = np.where(graph.kind == FEATURE, graph.activation.astype(np.float64), 1.0)
    shares = np.zeros((graph.n_nodes, graph.n_nodes))
    shares[graph.target, graph.source] = graph.weight / size[graph.target]
    inverse = np.linalg.inv(np.eye(graph.n_nodes) - shares)
    assert found.total == pytest.approx(inverse[graph.nodes_of(LOGIT)[0], found.nodes], rel=1e-9, abs=1e-12)
    assert not np.allclose(found.total, found.direct)


@pytest.mark.parametrize("factor", [0, 2])
def test_in_the_local_replacement_model_the_logit_changes_by_the_total(factor):
    model = gated_model()
    graph = traced(model)
    found = predict(graph, TARGET)
    before = replaced_logit(model, None)
    for index in range(0, len(found.nodes), 5):
        node = found.nodes[index]
        change = replaced_logit(model, (graph.layer[node], graph.position[node], graph.feature[node], factor)) - before
        assert change == pytest.approx((factor - 1) * found.total[index], abs=1e-4)


def test_the_direct_effect_is_what_circuit_tracer_measures_with_all_layers_held():
    model = gated_model()
    graph = traced(model)
    found = predict(graph, TARGET)
    before = demeaned(model(torch.tensor([IDS])))
    for node, direct in list(zip(found.nodes, found.direct, strict=True))[::5]:
        layer, position, latent = (int(column[node]) for column in (graph.layer, graph.position, graph.feature))
        change = (layer, position, latent, 2 * float(graph.activation[node]))
        logits, _ = model.feature_intervention(torch.tensor(IDS), [change], constrained_layers=range(LAYERS))
        assert demeaned(logits) - before == pytest.approx(direct, abs=1e-4)


def test_a_graph_of_another_token_is_refused():
    with pytest.raises(ValueError, match="one logit of token 3"):
        predict(chain(), 3)


def test_a_latent_that_does_not_fire_is_refused():
    with pytest.raises(ValueError, match="latent 1 of layer 1 has 0.0"):
        predict(chain(activations=(2.0, 0.0)), 9)


def demeaned(logits):
    last = logits[0, -1].detach().double()
    return float(last[TARGET] - last.mean())


@torch.no_grad()
def replaced_logit(model, change):
    """The demeaned logit with each MLP replaced by its active latents and its skip, and what they miss held;
    patterns and scales held too. `change`: (layer, position, latent, factor)."""
    held = {}
    names = [name for name in model.hook_dict if name.endswith(("pattern", "scale", "mlp.hook_in", "mlp.hook_out"))]
    model.run_with_hooks(
        torch.tensor([IDS]), fwd_hooks=[(name, lambda value, hook: held.update({hook.name: value})) for name in names]
    )
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names if name.endswith(("pattern", "scale"))]
    for layer, transcoder in enumerate(model.transcoders):
        reads, writes = f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.mlp.hook_out"
        hooks += replacing(
            transcoder, held[reads], held[writes], reads, writes, change if change and change[0] == layer else None
        )
    return demeaned(model.run_with_hooks(torch.tensor([IDS]), fwd_hooks=hooks))


def replacing(transcoder, entered, left, reads, writes, change):
    now = {}
    active = transcoder.encode(entered) > 0
    active[:, 0] = False  # circuit-tracer counts no latent at the first position

    def written(x):
        responses = torch.where(active, transcoder.encode(x, apply_activation_function=False), 0)
        if change is not None and x is not entered:
            _, position, latent, factor = change
            responses[:, position, latent] *= factor
        return responses @ transcoder.W_dec + transcoder.compute_skip(x)

    return [
        (reads, lambda value, hook: now.update(x=value)),
        (writes, lambda value, hook: left + written(now["x"]) - written(entered)),
    ]
