"""Is the figure of a graph valid, complete within what its caption says, and the same each time?"""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_graphs import made_up_graph

from reasondiff.graphs.drawing import ADDS, MOST_EDGES, MOST_TOKENS, TAKES, WIDTH, draw
from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.graphs.pruning import prune

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert('&\x00\x1b</script>"


@pytest.fixture(scope="module")
def graph():
    return prune(made_up_graph(seed=2, positions=6, features=40), 0.9, 0.98)


def parts(svg):
    return ElementTree.fromstring(svg)


def words(svg):
    return [element.text for element in parts(svg).iter(f"{SVG}text")]


def said(svg):
    return " ".join(words(svg))


def curves(svg):
    return [one for one in parts(svg).iter(f"{SVG}path") if one.get("stroke") in (ADDS, TAKES)]


def circles(svg):
    """Latents; one more is in the legend."""
    return list(parts(svg).iter(f"{SVG}circle"))


def by_influence(graph):
    """(layer, latent) of the latents, the most influential first, each once."""
    order = [node for node in np.argsort(-graph.influence, kind="stable") if graph.kind[node] == FEATURE]
    return list(dict.fromkeys((int(graph.layer[node]), int(graph.feature[node])) for node in order))


# ------------------------------------------------------------------------------------------------ what is drawn


def test_every_node_and_edge_is_drawn_and_the_caption_counts_them(graph):
    svg = draw(graph, {}, 3)
    latents = int((graph.kind == FEATURE).sum())
    assert len(circles(svg)) == latents + 1 and len(curves(svg)) == graph.n_edges <= MOST_EDGES
    assert f"drawn: {latents} latents, {graph.n_edges} edges" in said(svg)


def test_an_edge_says_its_sign_by_colour_and_by_dashes(graph):
    drawn = curves(draw(graph, {}, 3))
    assert sum(one.get("stroke") == TAKES for one in drawn) == int((graph.weight < 0).sum())
    assert all((one.get("stroke-dasharray") is not None) == (one.get("stroke") == TAKES) for one in drawn)


def test_a_stronger_edge_is_wider_and_drawn_over_weaker_ones(graph):
    widths = [float(one.get("stroke-width")) for one in curves(draw(graph, {}, 3))]
    assert widths == sorted(widths) and widths[-1] > 2 * widths[0]


def test_of_very_many_edges_the_strongest_are_drawn_and_the_rest_counted():
    graph = made_up_graph(seed=4, positions=8, features=60)
    svg = draw(graph, {}, 3)
    assert graph.n_edges > MOST_EDGES == len(curves(svg))
    assert f"{MOST_EDGES} of {graph.n_edges:,} edges, the strongest" in said(svg)
    strongest = np.argsort(-np.abs(graph.weight), kind="stable")[:MOST_EDGES]
    assert sum(one.get("stroke") == TAKES for one in curves(svg)) == int((graph.weight[strongest] < 0).sum())


def test_of_very_many_tokens_those_without_a_latent_are_left_out_the_least_influential_first():
    """41 embeddings add 1, 2 ... 41 to the one latent, at the last token: the strongest 27 before it are drawn."""
    n = 41
    graph = make_graph(
        tuple(f"t{place}" for place in range(n)), {}, kind=[EMBEDDING] * n + [FEATURE, LOGIT],
        layer=[-1] * n + [0, 1], position=[*range(n), n - 1, n - 1], feature=[*range(n), 5, 6],
        activation=[np.nan] * n + [1, np.nan], influence=[np.nan] * (n + 2), probability=[np.nan] * (n + 1) + [0.5],
        source=[*range(n), n], target=[n] * n + [n + 1], weight=[*range(1, n + 1), 1],
    )  # fmt: skip
    figure = draw(graph, {}, 3)
    drawn = {f"t{place}" for place in range(n) if f">t{place}<" in figure}
    assert drawn == {f"t{place}" for place in range(n - MOST_TOKENS, n)}
    assert f"{MOST_TOKENS} of 41 tokens" in re.sub(r"<[^>]+>|\s+", " ", figure).replace("  ", " ")


def test_the_most_influential_latents_are_numbered_in_order_and_named(graph):
    labels = {key: f"label of {key[0]}/{key[1]}" for key in by_influence(graph)}
    svg = draw(graph, labels, 5)
    named = re.findall(r"layer (\d+), [^:]*: label of (\d+)/(\d+)", said(svg))
    assert [(int(layer), int(latent)) for _, layer, latent in named] == by_influence(graph)[:5]
    assert all(row == layer for row, layer, _ in named)


def test_a_latent_at_two_positions_has_one_number(graph):
    first = int(np.argmax(np.where(graph.kind == FEATURE, graph.influence, -1)))
    other = next(node for node in graph.nodes_of(FEATURE) if graph.position[node] != graph.position[first])
    columns = {name: getattr(graph, name).copy() for name in ("layer", "feature")}
    for name, column in columns.items():
        column[other] = getattr(graph, name)[first]
    svg = draw(replace(graph, **columns), {}, 4)
    numbers = [one.text for one in parts(svg).iter(f"{SVG}text") if one.get("font-weight") == "600"]
    # each number stands once in the list of labels: the first one twice in the drawing, the others once
    assert [numbers.count(str(number)) for number in (1, 2, 3, 4)] == [3, 2, 2, 2]


def test_a_latent_without_a_label_is_named_by_its_number(graph):
    layer, latent = by_influence(graph)[0]
    assert re.search(rf"layer {layer}, [^:]*: latent {latent}\b", said(draw(graph, {}, 1)))


def test_the_caption_says_whose_graph_it_is_and_what_it_explains(graph):
    facts = {"model": "distill", "seed": 1, "prompt_id": "snail", "target": "think", "target_token": " 4"}
    logits = graph.nodes_of(LOGIT)
    graph = replace(graph, facts={**graph.facts, **facts, "target_id": int(graph.feature[logits[1]])})
    caption = said(draw(graph, {}, 3))
    for part in ("distill, seed 1", "prompt snail", "target think", "next token “ 4”", "feature share 0."):
        assert part in caption
    assert f"p = {graph.probability[logits[1]]:.2f}" in caption  # of the target, not of the likeliest token


def test_only_the_token_that_is_explained_is_filled(graph):
    triangles = [one for one in parts(draw(graph, {}, 3)).iter(f"{SVG}path") if "H" in one.get("d", "")]
    fills = [one.get("fill") for one in triangles]  # three logits, and one in the legend
    assert len(fills) == 4 and fills.count("#fff") == 2


def test_a_graph_of_which_little_is_known_is_drawn(graph):
    # published graphs have no influences and no facts
    svg = draw(replace(graph, influence=np.full(graph.n_nodes, np.nan, dtype=np.float32), facts={}), {}, 3)
    assert "drawn:" in said(svg) and "None" not in svg and "nan" not in svg


# ------------------------------------------------------------------------------------------------ a valid file


def test_text_of_tokens_and_labels_stays_text(graph):
    tokens = (NASTY, "\n", "", "  ", "]]>", "\u2028")
    graph = replace(graph, tokens=tokens, facts={**graph.facts, "target_token": NASTY, "model": NASTY})
    svg = draw(graph, dict.fromkeys(by_influence(graph), NASTY), 12)
    assert not list(parts(svg).iter(f"{SVG}script")) and "<script" not in svg
    assert "<script>alert('&" in said(svg)  # it is there, as words
    assert "\ufffd" in svg and "\x00" not in svg and "\x1b" not in svg  # letters that XML does not know


def test_the_figure_keeps_its_width_and_everything_lies_inside():
    graph = made_up_graph(seed=4, positions=40, blocks=3, features=60)
    figure = parts(draw(graph, {}, 12))
    _, _, width, height = map(float, figure.get("viewBox").split())
    assert float(figure.get("width")) == width == WIDTH
    shift = float(re.search(r"translate\((\d+)", figure.find(f"{SVG}g").get("transform"))[1])
    for circle in figure.find(f"{SVG}g").iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx")) + shift < width and 0 < float(circle.get("cy")) < height
    for text in figure.findall(f"{SVG}g")[1].iter(f"{SVG}text"):
        assert float(text.get("y")) < height


def test_equal_graphs_give_equal_bytes(graph):
    again = prune(made_up_graph(seed=2, positions=6, features=40), 0.9, 0.98)
    assert draw(graph, {}, 6) == draw(again, {}, 6)


def test_a_graph_that_could_not_be_made_says_why():
    svg = draw(no_graph((" a",), {"model": "base", "target": "own"}, "the response <cut> holds no answer"), {}, 6)
    assert "No graph of base, own: the response <cut> holds no answer." in said(svg)
    assert not curves(svg) and float(parts(svg).get("height")) < 60
