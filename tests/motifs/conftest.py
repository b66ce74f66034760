"""Networks to count in: random layered ones, and a published graph with its published counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from reasondiff.config import Motifs
from reasondiff.graphs.graph import Graph, make_graph
from reasondiff.graphs.sources import read_folder
from reasondiff.motifs.network import Network, network_of

KINDS = {"feature": 0, "embedding": 2, "logit": 3}


def layered_graph(
    seed: int, layers: int, width: int, positions: int, density: float, facts: dict | None = None
) -> Graph:
    """`width` latents in each layer, an embedding for each position, two logits at the last position; of all couples
    that an edge may join, a share of `density`; weights of either sign."""
    rng = np.random.default_rng(seed)
    kind = [KINDS["embedding"]] * positions + [KINDS["feature"]] * (layers * width) + [KINDS["logit"]] * 2
    layer = np.array([-1] * positions + list(np.repeat(np.arange(layers), width)) + [layers] * 2)
    spread = rng.integers(0, positions, layers * width)
    position = np.concatenate([np.arange(positions), spread, [positions - 1] * 2])
    later = (layer[:, None] < layer[None, :]) & (position[:, None] <= position[None, :])
    source, target = np.nonzero(later & (rng.random(later.shape) < density))
    n = len(kind)
    return make_graph(
        tuple(f"t{place}" for place in range(positions)), facts or {}, kind=kind, layer=layer, position=position,
        feature=np.arange(n), activation=np.full(n, np.nan), influence=np.full(n, np.nan),
        probability=np.full(n, np.nan), source=source, target=target,
        weight=rng.normal(size=len(source)) + 0.4,
    )  # fmt: skip


def network_with(network: Network, source, target, positive) -> Network:
    """The nodes of a network with other edges."""
    ends = (np.asarray(source, dtype=np.int32), np.asarray(target, dtype=np.int32))
    return Network(network.kind, network.layer, network.position, *ends, np.asarray(positive, dtype=bool))


@pytest.fixture(scope="session")
def make_graph_of_layers():
    return layered_graph


@pytest.fixture(scope="session")
def with_edges():
    return network_with


@pytest.fixture(scope="session")
def random_network():
    """`random_network(seed, layers=4, ...)`: see `layered_graph`."""

    def make(seed, layers=4, width=6, positions=3, density=0.4):
        return network_of(layered_graph(seed, layers, width, positions, density))

    return make


@pytest.fixture(scope="session")
def motif_settings():
    """`motif_settings(samples=99, ...)`."""

    def make(**changes):
        settings = {
            "thresholds": [[1.0, 1.0]], "max_gap": 5, "nulls": ["typed"], "samples": 99,
            "samples_beside": changes.get("samples", 99), "chains": 4,
            "swaps_per_edge": 10, "min_states": 20, "sources": {}, "bootstrap": 100, "seed": 0,
        }  # fmt: skip
        return Motifs.model_validate({**settings, **changes})

    return make


@pytest.fixture(scope="session")
def published_graph():
    """The published graph of Dallas -> Texas -> Austin."""
    folder = os.environ.get("REASONDIFF_GRAPHS")
    if not folder:
        pytest.skip("REASONDIFF_GRAPHS names no folder with published graphs (they are not ours to distribute)")
    return read_folder(folder)["capital-state-dallas"]


@pytest.fixture(scope="session")
def published_counts():
    """What was published of that graph's motifs, and measured with the published program."""
    path = os.environ.get("REASONDIFF_MOTIF_REFERENCE")
    if not path:
        pytest.skip("REASONDIFF_MOTIF_REFERENCE names no file of published motif counts (they are not ours)")
    return json.loads(Path(path).read_text())["graphs"]["capital-state-dallas"]
