"""How does an attribution graph look in the JSON that Neuronpedia and circuit-tracer's viewer read?"""

import copy
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from circuit_tracer_graphs import double_precision, to_circuit_tracer
from made_up_graphs import made_up_graph

from reasondiff.graphs.exchange import (
    cantor,
    clerps,
    from_neuronpedia,
    labels_of,
    node_ids,
    slug_and_scan,
    to_neuronpedia,
)
from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.graphs.pruning import prune, stored_part
from reasondiff.store import ArtefactError

WORDS, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
MAYBE_NUMBER = {"type": ["number", "null"]}


def of(required, **properties):
    return {"type": "object", "properties": properties, "required": required.split()}


# the constraints of Neuronpedia's graph-schema.json (hijohnnylin/neuronpedia, apps/webapp/app/api/graph)
SCHEMA = of(
    "metadata qParams nodes links",
    metadata=of(
        "slug scan prompt_tokens prompt",
        slug=WORDS,
        scan=WORDS,
        prompt_tokens={"type": "array", "items": WORDS},
        prompt=WORDS,
        feature_details=of("", feature_json_base_url=WORDS, neuronpedia_source_set=WORDS),
        node_threshold=NUMBER,
        info=of(
            "",
            description=WORDS,
            creator_name=WORDS,
            creator_url=WORDS,
            source_urls={"type": "array"},
            generator=of("", name=WORDS, version=WORDS, url=WORDS, email=WORDS),
            create_time_ms=NUMBER,
        ),
        generation_settings=of(
            "", max_n_logits=WHOLE, desired_logit_prob=NUMBER, batch_size=WHOLE, max_feature_nodes=WHOLE
        ),
        pruning_settings=of("", node_threshold=NUMBER, edge_threshold=NUMBER),
    ),
    qParams=of(
        "",
        pinnedIds={"type": "array", "items": WORDS},
        supernodes={"type": "array"},
        linkType=WORDS,
        clickedId=WORDS,
        sg_pos=WORDS,
    ),
    nodes={
        "type": "array",
        "items": of(
            "node_id feature layer ctx_idx feature_type jsNodeId clerp",
            node_id=WORDS,
            feature={"type": ["integer", "null"]},
            layer={"type": ["string", "integer"]},
            ctx_idx=WHOLE,
            feature_type=WORDS,
            jsNodeId=WORDS,
            clerp=WORDS,
            influence=MAYBE_NUMBER,
            activation=MAYBE_NUMBER,
        ),
    },
    links={"type": "array", "items": of("source target weight", source=WORDS, target=WORDS, weight=NUMBER)},
)


def as_json(graph, labels=()):
    """What another program reads: the text is parsed again, and strictly."""
    content = to_neuronpedia(graph, dict(labels), "a-graph", "a-model")
    return json.loads(json.dumps(content, allow_nan=False))


def assert_same(graph, other):
    for one in fields(graph):
        if one.name not in ("tokens", "facts"):
            np.testing.assert_array_equal(getattr(graph, one.name), getattr(other, one.name), err_msg=one.name)
    assert graph.tokens == other.tokens
    assert dict(graph.facts) == dict(other.facts)


@pytest.fixture
def content():
    return as_json(made_up_graph(1))


# ------------------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("make", [made_up_graph, lambda seed: prune(made_up_graph(seed), 0.8, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_a_graph_comes_back_the_same(make, seed):
    graph = make(seed)
    assert_same(from_neuronpedia(as_json(graph), "here"), graph)


def test_a_graph_of_unknown_influences_and_probabilities_comes_back_the_same():
    graph = made_up_graph(1)
    unknown = np.full_like(graph.influence, np.nan)
    assert_same(from_neuronpedia(as_json(replace(graph, influence=unknown, probability=unknown)), "here"),
                replace(graph, influence=unknown, probability=unknown))  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_json_keeps_neuronpedia_s_schema(seed):
    graph = made_up_graph(seed, settings={"batch_size": 8, "max_features": None, "links": None})
    jsonschema.validate(as_json(graph, {(0, 3): "sums"}), SCHEMA)
    jsonschema.validate(as_json(prune(graph, 0.8, 0.9)), SCHEMA)


def test_json_is_a_model_of_circuit_tracer_s_viewer():
    from circuit_tracer.frontend.graph_models import Model

    Model.model_validate(as_json(prune(made_up_graph(1), 0.8, 0.9)))


def test_equal_graphs_give_equal_bytes():
    texts = {json.dumps(to_neuronpedia(made_up_graph(4), {(1, 2): "a"}, "s", "m")) for _ in range(2)}
    assert len(texts) == 1


def test_ids_of_nodes_are_unique():
    # all 40 latents of 41 blocks at both positions: every small number is a layer's and a latent's
    graph = made_up_graph(0, blocks=41, positions=2, features=41 * 2 * 40, density=0.0)
    ids = node_ids(graph)
    assert len(set(ids)) == len(ids) == graph.n_nodes


def test_circuit_tracer_s_own_ids_are_not_unique():
    from circuit_tracer.frontend.graph_models import Node

    assert Node.error_node(2, 1).node_id == Node.feature_node(0, 1, 2).node_id


def test_ids_and_numbers_are_those_circuit_tracer_gives():
    from circuit_tracer.frontend.graph_models import Node

    graph = made_up_graph(1)
    nodes = as_json(graph)["nodes"]
    for row, node in enumerate(nodes):
        layer, position, feature = (int(getattr(graph, name)[row]) for name in ("layer", "position", "feature"))
        theirs = {
            FEATURE: lambda: Node.feature_node(layer, position, feature),  # noqa: B023
            ERROR: lambda: Node.error_node(layer, position),  # noqa: B023
            EMBEDDING: lambda: Node.token_node(position, feature),  # noqa: B023
            LOGIT: lambda: Node.logit_node(position, feature, "", layer),  # noqa: B023
        }[int(graph.kind[row])]()
        assert (node["layer"], node["feature"], node["feature_type"]) == (
            theirs.layer, theirs.feature, theirs.feature_type,
        )  # fmt: skip
        assert node["node_id"] == theirs.node_id or graph.kind[row] == ERROR


def test_two_numbers_make_one_that_no_others_make():
    pairs = [(layer, latent) for layer in range(40) for latent in range(200)]
    assert len({cantor(*pair) for pair in pairs}) == len(pairs)


def test_labels_and_tokens_stand_in_clerp():
    graph = made_up_graph(1, target_token=" 42", logit_tokens={"207": " 43"})
    first = graph.nodes_of(FEATURE)[0]
    key = (int(graph.layer[first]), int(graph.feature[first]))
    content = as_json(graph, {key: "carries the one"})
    said = {node["node_id"]: node["clerp"] for node in content["nodes"]}
    ids = node_ids(graph)
    assert said[ids[first]] == "carries the one"
    assert said[ids[graph.nodes_of(FEATURE)[1]]] == ""
    logits = [said[ids[row]] for row in graph.nodes_of(LOGIT)]
    chances = graph.probability[graph.kind == LOGIT]
    assert logits == [
        f'Output " 42" (p={chances[0]:.3f})',
        f'Output " 43" (p={chances[1]:.3f})',
        f'Output "token 214" (p={chances[2]:.3f})',
    ]
    assert said[ids[0]] == 'Emb: " w0"'
    assert clerps(content, "here") == {key: "carries the one"}


def test_the_logit_that_is_explained_is_marked():
    for target, rank in ((207, 1), (None, 0)):
        nodes = as_json(made_up_graph(1, target_id=target))["nodes"]
        logits = [node["is_target_logit"] for node in nodes if node["feature_type"] == "logit"]
        assert logits == [place == rank for place in range(3)]


def test_metadata_say_how_the_graph_was_made_and_pruned():
    graph = prune(made_up_graph(1, max_features=7, settings={"window": 4, "batch_size": 2}), 0.8, 0.9)
    metadata = as_json(graph)["metadata"]
    assert metadata["generation_settings"] == {
        "max_n_logits": 3, "max_feature_nodes": 7, "window": 4, "batch_size": 2
    }  # fmt: skip
    assert metadata["pruning_settings"] == {"node_threshold": 0.8, "edge_threshold": 0.9}
    assert (metadata["node_threshold"], metadata["schema_version"]) == (0.8, 1)
    assert (metadata["slug"], metadata["scan"]) == ("a-graph", "a-model")
    assert metadata["prompt_tokens"] == [" w0", " w1", " w2", " w3", " w4"]
    assert metadata["prompt"] == " w0 w1 w2 w3 w4"


def test_the_slider_s_influence_is_that_of_a_node_and_all_above_it():
    graph = stored_part(made_up_graph(1), 0.9, 1000)
    nodes = [node for node in as_json(graph)["nodes"] if node["feature_type"] != "logit"]
    falling = sorted(nodes, key=lambda node: -node["influence_share"])
    sums = np.cumsum([node["influence_share"] for node in falling]) / graph.facts["influence_total"]
    np.testing.assert_allclose([node["influence"] for node in falling], sums, rtol=1e-6)
    assert sums[-1] < 1


def test_facts_that_json_has_no_number_for_become_null():
    content = as_json(made_up_graph(1, included=float("nan"), nested={"far": [float("inf"), 1.5]}))
    facts = content["metadata"]["reasondiff"]["facts"]
    assert (facts["included"], facts["nested"]) == (None, {"far": [None, 1.5]})


def test_a_graph_that_could_not_be_made_says_why():
    facts = {"model": "rl", "status": "failed", "blocks": 4, "target_token": None, "settings": None}
    empty = no_graph(("a", " b"), facts, "the context is longer than the model's 512 positions")
    content = as_json(empty)
    jsonschema.validate(content, SCHEMA)
    assert content["nodes"] == content["links"] == []
    assert "512 positions" in content["metadata"]["info"]["description"]
    assert_same(from_neuronpedia(content, "here"), empty)


def test_settings_that_the_schema_has_another_type_for_are_refused():
    with pytest.raises(ValueError, match="batch_size"):
        to_neuronpedia(made_up_graph(1, settings={"batch_size": "many"}), {}, "s", "m")


def test_a_traced_graph_is_named_by_model_prompt_and_target():
    assert slug_and_scan(made_up_graph(1)) == ("base-seed0-sum-answer", "base-seed0")


# -------------------------------------------------------------------------------------------------- in


def circuit_tracer_file(graph, shares):
    """What circuit-tracer's `create_graph_files` writes."""
    from circuit_tracer.graph import prune_graph
    from circuit_tracer.utils.create_graph_files import build_model, create_nodes, create_used_nodes_and_edges

    class Words:
        def decode(self, token):
            return f" w{int(token) - 100}"

    with double_precision():
        theirs, _ = to_circuit_tracer(graph)
        node_mask, edge_mask, cumulative = prune_graph(theirs, *shares)
    nodes = create_nodes(theirs, node_mask, Words(), cumulative.tolist())
    used, links = create_used_nodes_and_edges(theirs, nodes, edge_mask)
    model = build_model(theirs, used, links, "theirs", "made/up", shares[0], Words())
    return json.loads(model.model_dump_json())


def test_a_file_of_circuit_tracer_holds_the_graph_that_we_prune():
    graph = made_up_graph(0, features=60, density=0.3)
    found, ours = from_neuronpedia(circuit_tracer_file(graph, (0.8, 0.95)), "here"), prune(graph, 0.8, 0.95)
    for name in ("kind", "layer", "position", "feature", "activation", "probability", "source", "target", "weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(ours, name), err_msg=name)
    assert found.tokens == graph.tokens
    assert (found.facts["blocks"], found.facts["target_id"]) == (4, graph.facts["target_id"])
    assert (found.facts["model"], found.facts["prompt_id"]) == ("made/up", "theirs")
    assert np.isnan(found.influence).all()


def test_the_slider_s_influence_is_circuit_tracer_s():
    graph = made_up_graph(0, features=60)
    stored = stored_part(graph, 0.95, 1000)
    ours = to_neuronpedia(prune(stored, 0.8, 0.95), {}, "s", "m", stored)["nodes"]
    # ids of errors differ
    found, theirs = (
        {
            (node["layer"], node["feature"], node["ctx_idx"]): node["influence"]
            for node in nodes
            if node["feature_type"] in ("cross layer transcoder", "mlp reconstruction error")
        }
        for nodes in (ours, circuit_tracer_file(graph, (0.8, 0.95))["nodes"])
    )
    assert len(theirs) > 20
    assert found == pytest.approx(theirs, abs=1e-6)


def test_latents_keep_the_numbers_of_files_that_do_not_pack_them(content):
    for node in content["nodes"]:
        if node["feature_type"] == "cross layer transcoder":
            node["feature"] += 10**7
    del content["metadata"]["reasondiff"]
    found, ours = from_neuronpedia(content, "here"), made_up_graph(1)
    features = ours.nodes_of(FEATURE)
    expected = [10**7 + cantor(*map(int, pair)) for pair in zip(ours.layer[features], ours.feature[features])]  # noqa: B905
    assert sorted(found.feature[found.kind == FEATURE].tolist()) == sorted(expected)


@pytest.mark.parametrize("token_ids", [True, False])
def test_logits_right_after_the_last_block_stay_there(content, token_ids):
    # Anthropic's files: token ids in the embeddings, logits one layer after the last latents; either tells
    for node in content["nodes"]:
        if node["feature_type"] == "embedding" and token_ids:
            node["feature"] += 100
        if node["feature_type"] == "logit":
            node["layer"] = 4
    del content["metadata"]["reasondiff"]
    found = from_neuronpedia(content, "here")
    assert set(found.layer[found.kind == LOGIT]) == {4}
    assert found.facts["blocks"] == 4


def test_settings_of_a_published_file_are_kept(content):
    del content["metadata"]["reasondiff"]
    content["metadata"]["pruning_settings"] = {"node_threshold": 0.7, "edge_threshold": 0.85}
    content["metadata"]["generation_settings"] = {"max_n_logits": 10}
    facts = from_neuronpedia(content, "here").facts
    assert facts["pruning"] == {"node_share": 0.7, "edge_share": 0.85}
    assert facts["settings"] == {"max_n_logits": 10}
    assert facts["status"] == "published"


def test_a_published_graph_is_read():
    folder = os.environ.get("REASONDIFF_GRAPHS")
    if not folder:
        pytest.skip("REASONDIFF_GRAPHS names no folder of published graphs")
    content = json.loads((Path(folder) / "capital-state-dallas.json").read_text())
    jsonschema.validate(content, SCHEMA)
    graph = from_neuronpedia(content, "Dallas")
    assert (graph.n_nodes, graph.n_edges) == (94, 2205)
    assert [int((graph.kind == kind).sum()) for kind in (FEATURE, ERROR, EMBEDDING, LOGIT)] == [71, 11, 11, 1]
    assert (graph.facts["blocks"], graph.facts["model"]) == (18, "jackl-circuits-runs-1-4-sofa-v3_0")
    assert clerps(content, "Dallas")[1, 24855676] == "uppercase"
    again = from_neuronpedia(as_json(graph), "again")
    assert_same(again, graph)


# ------------------------------------------------------------------------------------------- bad input


def drop(*path):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        del content[path[-1]]

    return change


def put(value, *path):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return change


def doubled(what):
    return lambda content: content[what].append(copy.deepcopy(content[what][0]))


def backward(content):
    ends = {node["node_id"]: node for node in content["nodes"]}
    latents = [link for link in content["links"] if ends[link["source"]]["feature_type"] == "cross layer transcoder"]
    inner = next(link for link in latents if ends[link["target"]]["feature_type"] != "logit")
    content["links"].append({"source": inner["target"], "target": inner["source"], "weight": 1.0})


def two_logit_layers(content):
    content["nodes"][-1]["layer"] = "9"


def no_logits(content):
    gone = {node["node_id"] for node in content["nodes"] if node["feature_type"] == "logit"}
    content["nodes"] = [node for node in content["nodes"] if node["node_id"] not in gone]
    content["links"] = [link for link in content["links"] if link["target"] not in gone]


BAD = [
    (drop("metadata"), "metadata: Field required"),
    (drop("metadata", "scan"), "metadata.scan: Field required"),
    (drop("qParams"), "qParams: Field required"),
    (drop("nodes", 3, "feature_type"), "nodes.3.feature_type: Field required"),
    (drop("links", 0, "weight"), "links.0.weight: Field required"),
    (put(float("nan"), "links", 2, "weight"), "links.2.weight: Input should be a finite number"),
    (put(float("inf"), "links", 2, "weight"), "links.2.weight: Input should be a finite number"),
    (put(None, "links", 2, "weight"), "links.2.weight: Input should be a valid number"),
    (put(1e300, "links", 2, "weight"), "1 edge weights are not finite"),
    (put("nowhere", "links", 0, "target"), "1 links lead to or from nodes that are not there, the first .* to nowhere"),
    (put("nowhere", "links", 0, "source"), "1 links lead to or from nodes that are not there, the first from nowhere"),
    (put("lorsa", "nodes", 0, "feature_type"), "is of the type 'lorsa'; known are cross layer transcoder"),
    (put("top", "nodes", 0, "layer"), "has the layer 'top', which is neither a number nor 'E'"),
    (put(-1, "nodes", 0, "ctx_idx"), "nodes.0.ctx_idx: Input should be greater than or equal to 0"),
    (put("1", "nodes", 0, "ctx_idx"), "nodes.0.ctx_idx: Input should be a valid integer"),
    (put({"facts": 3}, "metadata", "reasondiff"), "metadata.reasondiff.facts: Input should be a valid dictionary"),
    (doubled("nodes"), "2 nodes have the id E_100_0; circuit-tracer gives errors ids"),
    (doubled("links"), "2 links lead from E_100_0 to"),
    (backward, "1 links do not lead to a later layer, the first from .* may have cycles"),
    (two_logit_layers, "has logits at 2 layers, expected one"),
    (no_logits, "has logits at 0 layers, expected one"),
]  # fmt: skip


@pytest.mark.parametrize("change, said", BAD)
def test_what_is_no_graph_is_refused_by_name(content, change, said):
    from_neuronpedia(content, "some/file.json")
    change(content)
    with pytest.raises(ArtefactError, match=said) as refused:
        from_neuronpedia(content, "some/file.json")
    assert str(refused.value).startswith("some/file.json")


@pytest.mark.parametrize("content", [[], None, {}, "graph"])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(ArtefactError, match="some/file.json is not Neuronpedia's graph JSON"):
        from_neuronpedia(content, "some/file.json")


def test_a_file_of_circuit_tracer_whose_ids_collide_is_refused():
    # a latent of layer 0 whose number is a layer: its id is also that of an error
    graph = made_up_graph(0)
    latents = graph.feature[(graph.kind == FEATURE) & (graph.layer == 0)]
    assert (latents < 4).any()
    with pytest.raises(ArtefactError, match="2 nodes have the id 0_._.; circuit-tracer gives errors ids"):
        from_neuronpedia(circuit_tracer_file(graph, (1.0, 1.0)), "here")


def test_a_graph_without_latents_is_read_and_refused_where_latents_are_needed(caplog):
    content = as_json(made_up_graph(1, features=0))
    del content["metadata"]["reasondiff"]
    assert from_neuronpedia(content, "empty.json").facts["warning"] == "it holds no latents"
    assert "empty.json holds no latents, only embedding, error, logit nodes" in caplog.text
    with pytest.raises(ArtefactError, match="empty.json holds no latents.*leave it out of the folder"):
        from_neuronpedia(content, "empty.json", need_features=True)


def test_links_of_weight_zero_are_no_edges(content):
    edges = from_neuronpedia(content, "here").n_edges
    content["links"][0]["weight"] = 0
    assert from_neuronpedia(content, "here").n_edges == edges - 1


# ---------------------------------------------------------------------------------------------- labels


def labels_json(*rows):
    return {"latents": [{"layer": layer, "latent": latent, "label": label} for layer, latent, label in rows]}


def test_labels_of_several_files_are_joined():
    first, second = labels_json((0, 3, "sums"), (1, 3, None)), labels_json((1, 4, "carries"))
    assert labels_of([first, second]) == {(0, 3): "sums", (1, 4): "carries"}


def test_labels_that_disagree_are_not_of_one_model():
    with pytest.raises(ArtefactError, match="latent 3 of layer 0 has two labels, 'sums' and 'tails'"):
        labels_of([labels_json((0, 3, "sums")), labels_json((0, 3, "tails"))])


def test_an_edge_s_weight_is_written_in_the_fewest_digits():
    graph = make_graph(
        ("a",), {}, kind=[EMBEDDING, LOGIT], layer=[-1, 0], position=[0, 0], feature=[1, 2], activation=[np.nan] * 2,
        influence=[1, 0], probability=[np.nan, 1], source=[0], target=[1], weight=[0.1],
    )  # fmt: skip
    assert as_json(graph)["links"] == [{"source": "E_1_0", "target": "1_2_0", "weight": 0.1}]
