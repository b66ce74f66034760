"""A change that is only usage, or only wiring, is found to be just that, whatever units the latents have."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, NO_FEATURE, make_graph
from reasondiff.graphs.wiring import LayerCorrespondence, compare

BLOCKS, LATENTS, POSITIONS, TOKENS = 3, 8, 2, (11, 12)
NODES = [(layer, position, latent) for layer in range(BLOCKS) for position in range(POSITIONS) for latent in (1, 4, 6)]
LOGITS = {21: 0.6, 22: 0.2}


def parts(seed: int = 0):
    """Activations and influences by node, virtual weights by couple of nodes, and weights of the edges from errors."""
    draw = np.random.default_rng(seed)
    embeddings = [(-1, position, token) for position, token in enumerate(TOKENS)]
    targets = [*NODES, *((BLOCKS, POSITIONS - 1, token) for token in LOGITS)]
    return {
        "activation": {node: draw.uniform(0.5, 2) for node in NODES},
        "influence": {node: draw.uniform(0.01, 0.1) for node in NODES},
        "virtual": {(s, t): draw.normal() for s in [*embeddings, *NODES] for t in targets if s[0] < t[0]},
        "error": {((0, 0), t): draw.normal() for t in targets if t[0] > 0},
    }


def graph_of(activation, influence, virtual, error, logits=LOGITS, tokens=TOKENS, **facts):
    """The graph with these latents; edges of others, and to other logits, are left out."""
    rows = [(EMBEDDING, -1, position, token, np.nan, 0.1, np.nan) for position, token in enumerate(tokens)]
    rows += [(FEATURE, *node, value, influence[node], np.nan) for node, value in activation.items()]
    rows += [(ERROR, 0, 0, NO_FEATURE, np.nan, 0.05, np.nan)]
    rows += [(LOGIT, BLOCKS, POSITIONS - 1, token, np.nan, 0.0, p) for token, p in logits.items()]
    number = {row[1:4] if row[0] != ERROR else "error": n for n, row in enumerate(rows)}
    edges = [(s, t, w * activation.get(s, 1.0)) for (s, t), w in virtual.items() if s in number and t in number]
    edges += [("error", t, w) for (_, t), w in error.items() if t in number]
    columns = zip(
        ("kind", "layer", "position", "feature", "activation", "influence", "probability"),
        zip(*rows, strict=True),
        strict=True,
    )
    source, target, weight = zip(*edges, strict=True)
    ends = {"source": [number[s] for s in source], "target": [number[t] for t in target], "weight": weight}
    return make_graph(tuple(map(str, tokens)), {"target_id": 21, **facts}, **dict(columns), **ends)


def same(partner=None, norms=None):
    """Every latent is its own partner, or `partner` says whose."""
    partner = np.arange(LATENTS) if partner is None else np.asarray(partner)
    first, second = (np.ones(LATENTS), np.ones(LATENTS)) if norms is None else norms
    return {layer: LayerCorrespondence(partner, first, second) for layer in range(BLOCKS)}


def close(found, expected):
    assert asdict(found) == pytest.approx(asdict(expected), rel=1e-4, abs=1e-6, nan_ok=True)


def test_equal_graphs_do_not_differ():
    found = compare(graph_of(**parts()), graph_of(**parts()), same())

    assert found.total_change == found.usage_set == found.usage_strength == found.wiring == found.error_change == 0
    assert found.node_overlap == found.edge_overlap == 1
    assert np.isnan([found.usage_set_share, found.usage_strength_share, found.wiring_share]).all()


def test_activations_alone_are_usage():
    changed = parts()
    draw = np.random.default_rng(1)
    changed["activation"] = {node: value * draw.uniform(0.3, 3) for node, value in changed["activation"].items()}

    found = compare(graph_of(**changed), graph_of(**parts()), same())

    assert found.wiring == pytest.approx(0, abs=1e-6)
    assert found.usage_strength == pytest.approx(found.total_change) and found.usage_strength > 0.1
    assert found.usage_strength_share == pytest.approx(1, abs=1e-5)


def test_virtual_weights_alone_are_wiring():
    changed = {**parts(), "virtual": parts(seed=1)["virtual"]}

    found = compare(graph_of(**changed), graph_of(**parts()), same())

    assert found.usage_strength == found.usage_set == 0
    assert found.wiring == pytest.approx(found.total_change) and found.wiring > 0.1


def test_another_unit_of_a_latent_is_no_change():
    """An activation 3 times as large, an encoder (all that comes in) 3 times and a decoder 1/3 as large."""
    draw = np.random.default_rng(1)
    factor = {node: f for layer in range(BLOCKS) for latent, f in enumerate(draw.uniform(0.2, 5, LATENTS))
              for node in NODES if node[0] == layer and node[2] == latent}  # fmt: skip
    changed = parts()
    changed["activation"] = {node: value * factor[node] for node, value in changed["activation"].items()}
    scaled = lambda source, target: factor.get(target, 1.0) / factor.get(source, 1.0)  # noqa: E731
    changed["virtual"] = {ends: weight * scaled(*ends) for ends, weight in changed["virtual"].items()}
    changed["error"] = {ends: weight * scaled(*ends) for ends, weight in changed["error"].items()}
    norm = {(node[0], node[2]): 1 / f for node, f in factor.items()}
    norms = {layer: np.array([norm.get((layer, latent), 1.0) for latent in range(LATENTS)]) for layer in range(BLOCKS)}
    known = {layer: LayerCorrespondence(np.arange(LATENTS), norms[layer], np.ones(LATENTS)) for layer in norms}

    close(
        compare(graph_of(**changed), graph_of(**parts()), known),
        compare(graph_of(**parts()), graph_of(**parts()), same()),
    )
    assert compare(graph_of(**changed), graph_of(**parts()), same()).total_change > 0.1


def test_renumbered_latents_are_found_again_through_their_correspondence():
    order = np.random.default_rng(2).permutation(LATENTS)  # latent j of the first is order[j] of the second
    renumber = lambda node: (*node[:2], int(order[node[2]])) if node[:2] in {n[:2] for n in NODES} else node  # noqa: E731
    first = parts()
    second = {
        "activation": {renumber(node): value for node, value in first["activation"].items()},
        "influence": {renumber(node): value for node, value in first["influence"].items()},
        "virtual": {(renumber(s), renumber(t)): weight for (s, t), weight in first["virtual"].items()},
        "error": {(s, renumber(t)): weight for (s, t), weight in first["error"].items()},
    }

    assert compare(graph_of(**first), graph_of(**second), same(order)).total_change == 0
    assert compare(graph_of(**first), graph_of(**second), same()).total_change > 0.3


def test_the_figures_do_not_depend_on_which_graph_comes_first():
    first, second = (
        graph_of(**parts(0)),
        graph_of(**{**parts(1), "activation": dict(list(parts(2)["activation"].items())[4:])}),
    )
    partner = np.array([1, 0, 2, 3, 4, 5, -1, 7])
    inverse = np.array([1, 0, 2, 3, 4, 5, -1, 7])
    norms = np.linspace(1, 2, LATENTS), np.linspace(3, 1, LATENTS)

    close(compare(first, second, same(partner, norms)), compare(second, first, same(inverse, norms[::-1])))


def by_hand():
    """One latent into one logit and one more latent that only the first graph has."""
    first = {
        "activation": {(0, 1, 1): 2.0, (0, 1, 4): 1.0}, "influence": {(0, 1, 1): 0.6, (0, 1, 4): 0.2},
        "virtual": {((0, 1, 1), (3, 1, 21)): 3.0, ((0, 1, 4), (3, 1, 21)): 2.0, ((-1, 1, 12), (0, 1, 1)): 4.0},
        "error": {((0, 0), (3, 1, 21)): 1.0}, "logits": {21: 0.5},
    }  # fmt: skip
    second = {
        "activation": {(0, 1, 1): 4.0}, "influence": {(0, 1, 1): 0.4},
        "virtual": {((0, 1, 1), (3, 1, 21)): 1.0, ((-1, 1, 12), (0, 1, 1)): 4.0},
        "error": {((0, 0), (3, 1, 21)): 2.0}, "logits": {21: 0.9},
    }  # fmt: skip
    return first, second


def test_figures_are_those_worked_out_by_hand():
    """Into the logit: 6, 2 and 1 (error) against 4, 0 and 2; it counts 1 in both, so (1 + 1) / (9 + 6) = 2/15 per unit.
    Into the latent: 4 against 4; it counts 0.6 and 0.4, so 1/8 per unit.

    Flow = 2/15 (6 + 4 + 2) + 1/8 (4 + 4) = 1.6 + 1 = 2.6. Change of the common edge: 6 - 4 = 2 = mean(3, 1) (2 - 4)
    + mean(2, 4) (3 - 1) = -4 + 6; the other edge goes by 2."""
    first, second = by_hand()

    found = compare(graph_of(**first), graph_of(**second), same())

    assert found.total_change == pytest.approx(2 / 15 * (2 + 2) / 2.6)
    assert found.usage_strength == pytest.approx(2 / 15 * 4 / 2.6)
    assert found.wiring == pytest.approx(2 / 15 * 6 / 2.6)
    assert found.usage_set == pytest.approx(2 / 15 * 2 / 2.6)
    assert (found.usage_strength_share, found.wiring_share, found.usage_set_share) == pytest.approx(
        (4 / 12, 6 / 12, 2 / 12)
    )
    assert found.node_overlap == pytest.approx(1.0 / 1.2)
    assert found.edge_overlap == pytest.approx((2 / 15 * 10 + 1) / 2.6)
    assert found.error_change == pytest.approx(1 / 3)
    assert found.without_partner == 0


def test_a_latent_without_a_partner_is_usage_and_counted_besides():
    first, second = by_hand()
    partner = np.arange(LATENTS)
    partner[4] = -1

    found = compare(graph_of(**first), graph_of(**second), same(partner))

    assert found.without_partner == pytest.approx(found.usage_set) and found.usage_set > 0
    swapped = compare(graph_of(**second), graph_of(**first), same(partner))
    assert swapped.without_partner == pytest.approx(swapped.usage_set)


def test_a_latent_that_is_named_alike_is_not_taken_for_the_partner():
    first, second = by_hand()
    partner = np.arange(LATENTS)
    partner[1] = -1

    found = compare(graph_of(**first), graph_of(**second), same(partner))

    assert found.usage_set == found.total_change == pytest.approx(1)
    assert found.node_overlap == found.edge_overlap == 0


def test_an_edge_that_one_graph_lacks_between_latents_of_both_is_wiring():
    changed = parts()
    changed["virtual"] = {ends: w for ends, w in changed["virtual"].items() if ends != ((0, 0, 1), (2, 1, 4))}

    found = compare(graph_of(**changed), graph_of(**parts()), same())

    assert found.wiring == pytest.approx(found.total_change) and found.wiring > 0
    assert found.edge_overlap == pytest.approx(1 - found.wiring) and found.node_overlap == 1


def test_logits_of_one_graph_alone_take_no_part():
    more = compare(graph_of(**parts(0)), graph_of(**parts(1), logits={21: 0.3}), same())
    fewer = compare(graph_of(**parts(0), logits={21: 0.6}), graph_of(**parts(1), logits={21: 0.3}), same())

    close(more, fewer)


def test_parts_exceed_the_total_only_where_they_cancel():
    for seed in range(3):
        found = compare(graph_of(**parts(seed)), graph_of(**parts(seed + 10)), same())
        parted = found.usage_set + found.usage_strength + found.wiring

        assert found.total_change <= parted + 1e-9
        assert 0 < found.total_change <= 1


def test_other_contexts_are_refused():
    with pytest.raises(ValueError, match="their tokens differ"):
        compare(graph_of(**parts()), graph_of(**parts(), tokens=(11, 13)), same())
    with pytest.raises(ValueError, match="their target_id differ"):
        compare(graph_of(**parts()), graph_of(**parts(), target_id=22), same())
    with pytest.raises(ValueError, match="their ids differ"):
        compare(graph_of(**parts(), ids=[1, 2]), graph_of(**parts(), ids=[1, 3]), same())


def test_the_same_ids_are_the_same_context_whatever_each_model_calls_them():
    """Qwen's `<|box_start|>` is DeepSeek's `<think>`."""
    ids = [7, 8, 9]
    renamed = replace(graph_of(**parts(), ids=ids), tokens=("a", "b", "c"))
    close(
        compare(graph_of(**parts(), ids=ids), renamed, same()),
        compare(graph_of(**parts()), graph_of(**parts()), same()),
    )


def test_a_correspondence_that_does_not_fit_is_refused():
    graph = graph_of(**parts())
    with pytest.raises(ValueError, match="layer 2, for which no correspondence"):
        compare(graph, graph, {layer: known for layer, known in same().items() if layer < 2})
    with pytest.raises(ValueError, match="partner twice"):
        compare(graph, graph, same([1, 1, 2, 3, 4, 5, 6, 7]))


def test_a_latent_that_does_not_fire_is_refused():
    silent = parts()
    silent["activation"] = {node: 0.0 if node[0] == 1 else value for node, value in silent["activation"].items()}

    with pytest.raises(ValueError, match="not positive"):
        compare(graph_of(**silent), graph_of(**parts()), same())
