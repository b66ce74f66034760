"""Does the viewer hold what the graphs say, whatever their text says, and does its script read graphs as we do?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_graphs import made_up_graph

from reasondiff.graphs import viewer
from reasondiff.graphs.exchange import node_ids, to_neuronpedia
from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, no_graph
from reasondiff.graphs.influence import influences
from reasondiff.graphs.pruning import prune
from reasondiff.store import ArtefactError

SCRIPT = Path(viewer.__file__).with_name("viewer.js")
NASTY = "</script><script>alert('<b>&\u2028\u2029"
NAME = "base/seed0/sum/answer"


@pytest.fixture(scope="module")
def graph():
    return prune(made_up_graph(seed=2, positions=6, features=40), 0.9, 0.98)


@pytest.fixture(scope="module")
def content(graph):
    return to_neuronpedia(graph, {}, "sum", "base-seed0")


def summary(**changes):
    known = {"model": "base", "seed": 0, "prompt_id": "sum", "target": "answer", "nodes": 7, "edges": 9.0}
    return pd.DataFrame([{**known, "explains": True, "refused": np.nan, **changes}])


def payload(script):
    """(function, first argument, second argument) of a script that registers something."""
    called = re.fullmatch(r'attributionGraphs\.(\w+)\(("[^"]*"),(.*)\);\n', script, re.DOTALL)
    return called[1], json.loads(called[2]), json.loads(called[3])


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_fetches_nothing_and_holds_the_list(content):
    row = viewer.index_row(NAME, content, viewer.summary_rows(summary()), "base_seed0")
    page = viewer.page([row], {"code": "0"})
    tags = Tags(page).tags
    assert [
        attributes for tag, attributes in tags if tag in ("link", "script", "img", "iframe") and "src" in attributes
    ] == []
    assert {attributes["href"] for tag, attributes in tags if "href" in attributes} == {
        "data:,",
        "#",
        "../../report.html",
    }
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(
        r"\b(fetch\(|XMLHttpRequest|innerHTML|outerHTML|insertAdjacentHTML|eval\(|document\.write)", page
    )
    listed = re.search(r'id="graph-index">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(listed) == [row] and '{"code":"0"}' in page


def test_every_element_that_the_script_asks_for_is_on_the_page():
    ids = {attributes["id"] for _, attributes in Tags(viewer.page([], {})).tags if "id" in attributes}
    script = SCRIPT.read_text()
    asked = set(re.findall(r'byId\("([^"]+)"\)', script)) | set(
        re.findall(r'"([\w-]+)"', re.search(r"= (\[[^\]]*\])\.map\(byId\)", script)[1])
    )
    assert len(asked) > 20 and asked <= ids


def test_text_of_graphs_cannot_end_the_script(graph):
    nasty = replace(graph, tokens=(NASTY,) * 6, facts={**graph.facts, "target_token": NASTY})
    content = to_neuronpedia(nasty, {(0, 1): NASTY}, NASTY, NASTY)
    row = viewer.index_row(NAME, content, viewer.summary_rows(summary(refused=NASTY)), None)
    for text in (viewer.graph_script(NAME, content), viewer.latents_script("base_seed0", {"0/1": {"label": NASTY}})):
        assert not set("<>&\u2028\u2029") & set(text)
    assert viewer.page([row], {"x": NASTY}).count("</script>") == viewer.page([], {}).count("</script>")
    assert row["target_token"] == row["refused"] == NASTY


def test_the_same_graphs_give_the_same_page(content):
    row = viewer.index_row(NAME, content, viewer.summary_rows(summary()), None)
    assert viewer.page([row], {"a": 1}) == viewer.page([dict(row)], {"a": 1})
    assert viewer.graph_script(NAME, content) == viewer.graph_script(NAME, json.loads(json.dumps(content)))


# ------------------------------------------------------------------------------------------------ what it is given


def test_a_graph_comes_back_from_its_script_as_it_was(content):
    assert payload(viewer.graph_script(NAME, content)) == ("graph", NAME, content)


def test_a_number_that_json_does_not_have_is_refused_with_the_name(content):
    content = {**content, "links": [{**content["links"][0], "weight": float("nan")}]}
    with pytest.raises(ValueError, match="base/seed0/sum/answer holds a number that is not finite"):
        viewer.graph_script(NAME, content)


def test_paths_say_what_graphs_and_latents_are_called():
    path = "results/graphs/distill/seed1/snail/think/graph.json"
    assert viewer.graph_name(path) == "distill/seed1/snail/think"
    assert viewer.subject_of(viewer.graph_name(path)) == "distill_seed1"
    assert viewer.subject_of_set("results/transcoders/distill/traces/x8k8/seed1/labels.json") == "distill_seed1"


def test_a_row_has_plain_values_and_none_for_what_is_not_known(content):
    row = viewer.index_row(NAME, content, viewer.summary_rows(summary()), "base_seed0")
    assert row["name"] == NAME and row["latents"] == "base_seed0"
    assert row["nodes"] == 7 and row["edges"] == 9 and row["explains"] is True and row["refused"] is None
    assert row["replacement"] == pytest.approx(content["metadata"]["reasondiff"]["facts"]["replacement"], rel=1e-3)
    json.dumps(row, allow_nan=False)


def test_a_token_that_looks_like_a_number_stays_a_token(graph):
    content = to_neuronpedia(replace(graph, facts={**graph.facts, "target_token": " 07"}), {}, "sum", "base")
    # a table of such tokens comes back from its file as numbers
    row = viewer.index_row(NAME, content, viewer.summary_rows(summary(target_token=7)), None)
    assert row["target_token"] == " 07"


def test_a_graph_that_could_not_be_made_is_listed_with_its_reason():
    facts = {"model": "base", "seed": 0, "prompt_id": "sum", "target": "answer", "status": "none"}
    content = to_neuronpedia(no_graph((" a",), facts, "no answer was given"), {}, "sum", "base")
    row = viewer.index_row(NAME, content, viewer.summary_rows(summary(explains=False, nodes=pd.NA)), None)
    assert (row["status"], row["reason"], row["nodes"]) == ("none", "no answer was given", None)


def test_a_graph_that_the_summary_lacks_is_refused(content):
    with pytest.raises(ArtefactError, match="no row of the graph base/seed1/sum/answer"):
        viewer.index_row("base/seed1/sum/answer", content, viewer.summary_rows(summary()), None)


def test_the_latents_of_a_graph_are_found_in_its_file(graph, content):
    latents = graph.kind == FEATURE
    expected = set(zip(graph.layer[latents].tolist(), graph.feature[latents].tolist(), strict=True))
    assert expected and viewer.latents_in(content) == expected


def test_a_latent_is_shown_with_its_strongest_passages_around_the_firing_token():
    tokens = [f" w{place}" for place in range(40)]
    row = {"layer": 1, "latent": 5, "start": 3, "tokens": tokens}
    # the window starts at position 3 of its document: position 23 is its token 20
    rows = [
        {**row, "place": 1, "position": 3},
        {**row, "place": 0, "position": 23},
        {**row, "place": 2, "position": 42},
    ]
    shown = viewer.latents_shown([(1, 5), (0, 2), (0, 3)], {(0, 2): "sums", (4, 4): "else"}, pd.DataFrame(rows), 2)
    assert list(shown) == ["0/2", "1/5"]  # of 0/3 nothing is known, 4/4 is in no graph
    assert shown["0/2"] == {"label": "sums", "examples": []} and shown["1/5"]["label"] is None
    (before, fires, after), second = shown["1/5"]["examples"]
    assert (before, fires, after) == ("".join(tokens[6:20]), " w20", "".join(tokens[21:35]))
    assert second == ["", " w0", "".join(tokens[1:15])]  # the third strongest is one too many


# ------------------------------------------------------------------------------------------------ what its script does

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node, which runs the script, is not installed")


def in_node(code, given):
    """What `code`, the body of a function of `given` and the script's own functions, returns."""
    whole = f"""
    const {{ read, parse, paths, filtered, GraphError }} = require({json.dumps(str(SCRIPT))});
    const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const caught = (run) => {{
      try {{
        run();
        return null;
      }} catch (error) {{
        return error instanceof GraphError ? error.message : `not a GraphError: ${{error}}`;
      }}
    }};
    console.log(JSON.stringify((() => {{ {code} }})()));"""
    done = subprocess.run(["node", "-e", whole], input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def without_shares(content):
    """The file as from elsewhere: without what only ours say."""
    nodes = [{key: value for key, value in node.items() if key != "influence_share"} for node in content["nodes"]]
    return {**content, "nodes": nodes}


@needs_node
def test_influences_along_the_edges_of_a_file_are_those_of_the_library(graph, content):
    code = "return Array.from(read(given, 'x').influence)"
    found, inner = np.array(in_node(code, without_shares(content))), graph.kind != LOGIT
    np.testing.assert_allclose(found[inner], influences(graph)[inner], rtol=1e-4, atol=1e-7)
    # ours say the whole graph's, and these are shown
    np.testing.assert_allclose(np.array(in_node(code, content))[inner], graph.influence[inner], rtol=1e-6)


@needs_node
def test_the_strongest_paths_are_those_of_all_paths_that_there_are():
    graph = made_up_graph(seed=5, blocks=4, positions=3, features=14, logits=2, density=0.5)
    content = to_neuronpedia(graph, {}, "sum", "base")
    latents = graph.nodes_of(FEATURE).tolist()
    code = "const graph = read(given[0], 'x'); return given[1].map((number) => paths(graph, number))"
    found = in_node(code, [content, latents])
    for node, shown in zip(latents, found, strict=True):
        for way in ("up", "down"):
            expected = all_paths(graph, node, way == "up")[:3]
            np.testing.assert_allclose([path["value"] for path in shown[way]], [v for v, _ in expected], rtol=1e-5)
            assert [path["edges"] for path in shown[way]] == [edges for _, edges in expected]
    assert max(len(shown["up"]) for shown in found) == max(len(shown["down"]) for shown in found) == 3


def all_paths(graph, node, upwards):
    """[(product of shares, edges)] of every path from a node to a logit or an embedding, the best first."""
    sums = np.bincount(graph.target, np.abs(graph.weight.astype(float)), minlength=graph.n_nodes)
    share = np.abs(graph.weight.astype(float)) / sums[graph.target]
    here, there = (graph.source, graph.target) if upwards else (graph.target, graph.source)
    chance = np.where(graph.kind == LOGIT, graph.probability, 0)
    start = chance / chance.sum() if upwards else (graph.kind == EMBEDDING).astype(float)

    def walk(at):
        if start[at] > 0:
            return [(start[at], [])]
        steps = np.flatnonzero(here == at).tolist()
        return [(share[e] * value, [e, *edges]) for e in steps for value, edges in walk(int(there[e]))]

    return sorted(walk(node), key=lambda path: -path[0])


@needs_node
def test_a_node_that_only_errors_lead_to_has_a_path_from_an_error():
    content = small()
    found = in_node("return paths(read(given, 'x'), 1)", content)
    assert found["fromErrors"] and [path["edges"] for path in found["down"]] == [[0]]
    assert found["up"][0]["edges"] == [1] and found["up"][0]["value"] == pytest.approx(0.25)  # 0.5 of 0.5 + 1.5


def small(**changes):
    """An error (layer 0) that gives 2 to a latent (layer 1), which gives 0.5 to a logit; an embedding takes 1.5."""
    kinds = {
        "0_error_0": "mlp reconstruction error",
        "1_7_0": "cross layer transcoder",
        "3_9_0": "logit",
        "E_4_0": "embedding",
    }
    nodes = [
        {"node_id": key, "layer": key.split("_")[0], "ctx_idx": 0, "feature_type": kind, "clerp": "", "feature": 1}
        for key, kind in kinds.items()
    ]
    links = [("0_error_0", "1_7_0", 2.0), ("1_7_0", "3_9_0", 0.5), ("E_4_0", "3_9_0", -1.5)]
    links = [{"source": source, "target": target, "weight": weight} for source, target, weight in links]
    return {"metadata": {"slug": "s", "prompt_tokens": [" a"]}, "nodes": nodes, "links": links, **changes}


@needs_node
def test_nodes_are_read_with_kind_layer_and_latent(graph, content):
    code = "return read(given, 'x').nodes.map((n) => [n.id, n.kind, n.latent, n.position, n.token, n.probability])"
    found = in_node(code, content)
    kinds = ("latent", "error", "embedding", "logit")
    assert [row[0] for row in found] == node_ids(graph)
    assert [row[1] for row in found] == [kinds[kind] for kind in graph.kind]
    latents = {int(row[2]) for row in found if row[1] == "latent"}
    assert latents == set(graph.feature[graph.kind == FEATURE].tolist())
    assert [row[4] for row in found] == [graph.tokens[position] for position in graph.position]
    chances = [row[5] for row in found if row[1] == "logit"]
    np.testing.assert_allclose(chances, graph.probability[graph.kind == LOGIT], rtol=1e-6)


@needs_node
def test_pruning_further_keeps_the_nodes_that_carry_the_share(graph, content):
    code = "return filtered(read(given[0], 'x'), given[1], given[2])"
    kept = in_node(code, [content, 0.5, True])
    inner = np.flatnonzero(graph.kind != LOGIT)
    order = inner[np.argsort(-graph.influence[inner], kind="stable")]
    carried = np.cumsum(graph.influence[order].astype(float)) / graph.influence[inner].sum()
    most = set(order[: int(np.searchsorted(carried, 0.5)) + 1].tolist())
    shown = {node for node, stays in enumerate(kept["nodes"]) if stays}
    assert {node for node in shown if graph.kind[node] == FEATURE} == {n for n in most if graph.kind[n] == FEATURE}
    assert set(graph.nodes_of(LOGIT).tolist()) <= shown and len(shown) < graph.n_nodes
    sizes = np.abs(graph.weight[kept["edges"]])
    assert (np.diff(sizes) <= 0).all()  # the strongest edges first
    assert set(graph.source[kept["edges"]].tolist()) <= shown


@needs_node
def test_errors_can_be_hidden_with_their_edges(graph, content):
    kept = in_node("return filtered(read(given, 'x'), 1, false)", content)
    assert not any(kept["nodes"][node] for node in graph.nodes_of(1))
    assert not np.isin(graph.source[kept["edges"]], graph.nodes_of(1)).any()
    whole = in_node("return filtered(read(given, 'x'), 1, true)", content)
    assert all(whole["nodes"]) and len(whole["edges"]) == graph.n_edges


def changed(place, **values):
    """`small()` with keys of its first node or link changed; None takes a key away."""
    content = small()
    first = {key: value for key, value in {**content[place][0], **values}.items() if value is not None}
    return {**content, place: [first, *content[place][1:]]}


WRONG = {
    "a list": ([1], "it holds no JSON object"),
    "other keys": ({"nodes": []}, "it lacks metadata, links"),
    "no list of nodes": (small(nodes=5), "nodes and links are not both lists"),
    "no tokens": (small(metadata={}), "metadata lacks prompt_tokens"),
    "a node without layer": (changed("nodes", layer=None), "node 0 lacks layer"),
    "a position before the first": (changed("nodes", ctx_idx=-1), "has the position -1"),
    "a layer that is none": (changed("nodes", layer="top"), "has the layer top"),
    "a link to nowhere": (changed("links", source="9_9_9"), "1 of 3 links lead to or from a node that is not there"),
    "a weight that is text": (changed("links", weight="2"), "the weights of 1 of 3 links are no finite numbers"),
    "no weight": (changed("links", weight=None), "the weights of 1 of 3 links are no finite numbers"),
    "one id twice": (changed("nodes", node_id="1_7_0"), "two nodes are called 1_7_0"),
    "a circle": (changed("links", source="3_9_0"), "its links run in a circle"),
}  # fmt: skip


@needs_node
def test_a_file_that_is_no_graph_is_refused_with_words():
    said = in_node("return given.map((one) => caught(() => read(one, 'my.json')))", [one for one, _ in WRONG.values()])
    for words, (name, (_, expected)) in zip(said, WRONG.items(), strict=True):
        assert words is not None, name
        assert words.startswith("my.json") and expected in words, (name, words)
        assert re.search(r"Choose a graph|[Ee]xport|Trace", words), f"{name}: not what to do"


@needs_node
def test_text_that_is_not_json_is_refused_and_nan_is_named():
    texts = ["hello", "", '{"weight": NaN}', "[1, -Infinity]", '{"a": "not NaN, only text"']
    said = in_node("return given.map((one) => caught(() => parse(one, 'my.json')))", texts)
    assert [("NaN or Infinity" in words) for words in said] == [False, False, True, True, False]
    assert all(words.startswith("my.json") for words in said)


@needs_node
def test_a_graph_without_nodes_or_links_is_read():
    content = to_neuronpedia(no_graph((" a",), {}, "no answer"), {}, "sum", "base")
    code = "const g = read(given, 'x'); return [g.nodes.length, filtered(g, 1, true).edges.length]"
    assert in_node(code, content) == [0, 0]
    assert in_node(code, small(links=[])) == [4, 0]
