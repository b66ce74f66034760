"""Small graphs with everything a traced one has: for tests that need a graph and no model."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, NO_FEATURE, make_graph
from reasondiff.graphs.influence import influences, scores

LATENTS = 40  # of each made-up transcoder: few, so that graphs of several seeds share some


def made_up_graph(seed=0, blocks=4, positions=5, features=24, logits=3, density=0.6, **facts):
    """A whole graph, as tracing gives it: an embedding at each position, an error at each block and position,
    `features` latents, `logits` tokens after the last position.

    Edges lead to later layers and never to earlier positions; `density` is the chance of each that could be. Errors
    and embeddings have no edges into them. `facts` replace the made-up ones.
    """
    rng = np.random.default_rng(seed)
    nodes = _nodes(rng, blocks, positions, features, logits)
    source, target = _edges(rng, nodes, density)
    words = tuple(f" w{number}" for number in range(positions))
    weight = rng.normal(0, 1, len(source))
    weight *= np.where(nodes["kind"][source] == FEATURE, 4.0, 1.0)  # latents explain most of it, as they should
    graph = make_graph(words, {}, **nodes, source=source, target=target, weight=weight)
    graph = replace(graph, influence=influences(graph).astype(np.float32))
    return replace(graph, facts={**_facts(graph, blocks, positions), **facts})


def _nodes(rng, blocks, positions, features, logits):
    columns = [(EMBEDDING, -1, position, 100 + position, np.nan, np.nan) for position in range(positions)]
    columns += [
        (ERROR, block, position, NO_FEATURE, np.nan, np.nan) for block in range(blocks) for position in range(positions)
    ]
    places = rng.choice(blocks * positions * LATENTS, features, replace=False)
    for place in places:
        block, rest = divmod(int(place), positions * LATENTS)
        columns.append((FEATURE, block, *divmod(rest, LATENTS), rng.gamma(2.0), np.nan))
    said = np.sort(rng.dirichlet(np.ones(logits + 1))[:-1])[::-1]
    columns += [(LOGIT, blocks, positions - 1, 200 + 7 * rank, np.nan, chance) for rank, chance in enumerate(said)]
    names = ("kind", "layer", "position", "feature", "activation", "probability")
    nodes = {name: np.array(column) for name, column in zip(names, zip(*columns, strict=True), strict=True)}
    return {**nodes, "influence": np.full(len(columns), np.nan)}


def _edges(rng, nodes, density):
    kind, layer, position = nodes["kind"], nodes["layer"], nodes["position"]
    later = layer[:, None] < layer[None, :]  # (source, target)
    causal = position[:, None] <= position[None, :]
    takes = np.isin(kind, (FEATURE, LOGIT))[None, :] & (kind != LOGIT)[:, None]
    return np.nonzero(later & causal & takes & (rng.random(later.shape) < density))


def _facts(graph, blocks, positions):
    features = int((graph.kind == FEATURE).sum())
    chance = graph.probability[graph.kind == LOGIT]
    first = int(graph.nodes_of(LOGIT)[np.argmax(chance)])
    found = {name: round(value, 6) for name, value in asdict(scores(graph)).items()} if features else {}
    return {
        "model": "base", "seed": 0, "prompt_id": "sum", "category": "arithmetic", "target": "answer",
        "phase": "answer", "status": "traced", "reason": None, "target_id": int(graph.feature[first]),
        "target_token": " yes", "probability": round(float(chance.max()), 6), "entropy": 0.7, "blocks": blocks,
        "ids": [100 + position for position in range(positions)], "active": features + 3, "features": features,
        "window": 16, "max_features": None, **found, "share_skip": 0.1, "coverage": 1.0, "included": 0.9,
        "replaced_kl": 0.2, "replaced_top1": True, "logit_difference": 3.5, "transcoders": ["0" * 16] * blocks,
        "settings": {"runners_up": 2},
    }  # fmt: skip
