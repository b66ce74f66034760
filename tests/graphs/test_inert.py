"""Is text in graphs only ever text, whatever it says? In a real browser."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from headless import HOSTILE, needs_chromium, opened
from made_up_graphs import made_up_graph

from reasondiff.graphs import viewer
from reasondiff.graphs.drawing import draw
from reasondiff.graphs.exchange import to_neuronpedia
from reasondiff.graphs.pruning import prune
from reasondiff.store import write_text

NAME = "base/seed0/sum/answer"


@pytest.fixture(scope="module")
def graph():
    pruned = prune(made_up_graph(seed=2, positions=6, features=40), 0.9, 0.98)
    return replace(pruned, tokens=(HOSTILE,) * 6, facts={**pruned.facts, "target_token": HOSTILE})


@pytest.fixture(scope="module")
def labels(graph):
    return dict.fromkeys(viewer.latents_in(to_neuronpedia(graph, {}, "sum", "base")), HOSTILE)


def write_viewer(folder, graph, labels):
    """The viewer with one graph, whose prompt, tokens, labels and examples are hostile."""
    content = to_neuronpedia(graph, labels, HOSTILE, HOSTILE)
    row = {"model": "base", "seed": 0, "prompt_id": "sum", "target": "answer", "category": HOSTILE, "nodes": 7}
    row |= {"edges": 9.0, "explains": False, "refused": HOSTILE}
    index = viewer.index_row(NAME, content, viewer.summary_rows(pd.DataFrame([row])), "base_seed0")
    shown = {f"{at}/{latent}": {"label": HOSTILE, "examples": [[HOSTILE] * 3]} for at, latent in labels}
    write_text(folder / "viewer.html", viewer.page([index], {"note": HOSTILE}))
    write_text(folder / "data" / f"{NAME}.js", viewer.graph_script(NAME, content))
    write_text(folder / "data/latents_base_seed0.js", viewer.latents_script("base_seed0", shown))
    return next(node["node_id"] for node in content["nodes"] if node["node_id"].startswith("1_"))


@needs_chromium
@pytest.mark.parametrize("is_graph", [False, True])
def test_the_viewer_shows_hostile_text_as_text(tmp_path, graph, labels, is_graph):
    node = write_viewer(tmp_path, graph, labels)
    found = opened(tmp_path / "viewer.html", f"{NAME}?node={node}" if is_graph else "")
    assert not found.ran and found.console == []
    part = '<section id="graph"' if is_graph else '<section id="list"'
    section = found.dom[found.dom.index(part) :]
    assert section[: section.index("</section>")].count("&lt;/script&gt;") > (10 if is_graph else 1)


@needs_chromium
def test_a_figure_that_is_opened_by_itself_runs_nothing(tmp_path, graph, labels):
    write_text(tmp_path / "graph.svg", draw(graph, labels))
    assert "&lt;" in (tmp_path / "graph.svg").read_text()
    found = opened(tmp_path / "graph.svg")
    assert not found.ran and found.console == []
