"""Does each graph get the measures that it should be compared by?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from made_up_motifs import GRAPHS, HEADLINE, facts_of, motifs_of, summary_of  # noqa: E402

from reasondiff.config import GraphGates  # noqa: E402
from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph, no_graph  # noqa: E402
from reasondiff.motifs.measures import (  # noqa: E402
    FAMILIES,
    MATCH,
    MOTIF,
    NEW,
    SHAPE,
    facts_of_graphs,
    measure_graphs,
    new_shares,
    summary_elsewhere,
)

ONE = [("distill", 0)]


def measured(summary, motifs, further=None):
    return measure_graphs(summary, motifs, facts_of(summary) if further is None else further, HEADLINE)


def row_of(found, prompt, target):
    place = (found.graphs["prompt_id"] == prompt) & (found.graphs["target"] == target)
    assert place.sum() == 1
    return found.values[place.to_numpy()].iloc[0]


# ------------------------------------------------------------------------------------------------ which rows


def test_motifs_are_those_of_the_headline_threshold_under_the_typed_null():
    summary = summary_of(["p", "q"], 0, ONE)
    headline = motifs_of(summary, 1, effect=lambda graph, motif: 1.0, spread=0.0)
    sparser = motifs_of(summary, 2, effect=lambda graph, motif: 2.0, spread=0.0, threshold=(0.6, 0.9))
    published_null = headline.assign(null="configuration", log_ratio=3.0)
    fewer_edges = motifs_of(summary, 2, effect=lambda graph, motif: 4.0, threshold=(0.8, 0.9))
    found = measured(summary, pd.concat([sparser, fewer_edges, published_null, headline]))
    motifs = [name for name, family in found.families.items() if family == MOTIF]
    assert motifs == ["signed coherent_ffl", "triad 030T", "typed 030T feature>feature>logit"]
    assert (found.values[motifs] == 1.0).all(axis=None) and (found.expected[motifs] == 50.0).all(axis=None)


def test_motifs_that_the_null_determines_and_untyped_triads_that_follow_are_not_compared():
    summary = summary_of(["p", "q"], 0, ONE)
    motifs = motifs_of(summary, 1, motifs=[("triad", "030T"), ("triad", "021D"), ("typed", "a"), ("typed", "b")])
    rows = {name: motifs.index[motifs["motif"] == name] for name in "ab"}
    motifs.loc[[*rows["b"][:4], rows["a"][0]], "motif_is_determined"] = True  # b in 4 of 6 graphs, a in one
    found = measured(summary, motifs)
    assert [name for name, family in found.families.items() if family == MOTIF] == ["triad 030T", "typed a"]


def test_a_threshold_at_which_nothing_was_counted_is_refused():
    summary = summary_of(["p"], 0, ONE)
    with pytest.raises(ValueError, match=r"shares \[0.8, 0.98\], they were counted at \[\[0.5, 0.9\]\]"):
        measured(summary, motifs_of(summary, 1, threshold=(0.5, 0.9)))


def test_graphs_with_nothing_to_count_leave_the_other_measures():
    summary = summary_of(["p", "q"], 0, ONE)
    uncounted = motifs_of(summary, 1).assign(log_ratio=np.nan, null_mean=np.nan, edges=0)
    flags = pd.Series([True, None, False, True, None, True], dtype=object)
    found = measured(summary.assign(replaced_top1=flags), uncounted)
    assert MOTIF not in found.families.values() and len(found.graphs) == 6
    assert found.values["depth"].notna().all() and found.graphs["log_edges"].isna().all()
    assert found.values["replaced_top1"].sum() == 3 and found.values["replaced_top1"].isna().sum() == 2


def test_graphs_that_could_not_be_traced_are_not_there():
    summary = summary_of(["p", "q"], 0, ONE)
    summary.loc[summary["prompt_id"].eq("q") & summary["target"].eq("think"), "status"] = "failed"
    traced = summary[summary["status"] == "traced"]
    found = measured(summary, motifs_of(traced, 1))
    assert len(found.graphs) == 5
    assert not (found.graphs["prompt_id"].eq("q") & found.graphs["target"].eq("think")).any()


def test_a_graph_without_motifs_keeps_its_shape_and_has_no_motif_values():
    summary = summary_of(["p"], 0, ONE)
    found = measured(summary, motifs_of(summary[summary["target"] != "answer"], 1))
    row = row_of(found, "p", "answer")
    assert np.isnan(row["triad 030T"]) and np.isfinite(row["depth"])


def test_every_measure_has_a_family_and_families_come_in_their_order():
    summary = summary_of(["p"], 0, ONE)
    found = measured(summary, motifs_of(summary, 1))
    assert list(found.families) == list(found.values.columns)
    order = [FAMILIES.index(family) for family in found.families.values()]
    assert order == sorted(order) and {MOTIF, SHAPE, NEW, MATCH} == set(found.families.values())


def test_rows_of_graphs_values_and_expected_counts_belong_together_in_any_order_of_the_tables():
    summary = summary_of(["p", "q", "r"], 0)
    motifs = motifs_of(summary, 1, effect=lambda graph, motif: ord(graph["prompt_id"]), spread=0.0)
    found = measured(summary, motifs)
    mixed = measured(summary.sample(frac=1, random_state=3), motifs.sample(frac=1, random_state=4))
    for one in (found, mixed):
        assert (one.values["triad 030T"] == one.graphs["prompt_id"].map(ord)).all()
    depth = summary.assign(source=summary["model"] + "/seed" + summary["seed"].astype(str))
    keys = ["source", "prompt_id", "target"]
    assert mixed.graphs[keys].assign(depth=mixed.values["depth"]).merge(depth, on=[*keys, "depth"]).shape[0] == 27


# ------------------------------------------------------------------------------------------------ graphs from elsewhere


def published(names, prompts, **columns):
    table = pd.DataFrame({"model": None, "seed": None, "prompt_id": prompts, "target": None, "phase": None})
    summary = table.assign(category=None, edges=200, name=names, **columns)
    motifs = motifs_of(summary.assign(model="x", seed=0), 5).assign(model=None, seed=None)
    return motifs.assign(source="published/haiku", name=np.repeat(names, 3))


def test_graphs_from_elsewhere_are_told_apart_by_name_and_need_no_row_in_the_summary():
    summary = summary_of(["p"], 0, ONE)
    other = published(["one", "two", "three"], ["p", None, None])
    found = measured(summary, pd.concat([motifs_of(summary, 1), other]))
    there = found.graphs[found.graphs["source"] == "published/haiku"]
    assert sorted(there["prompt_id"]) == ["p", "three", "two"]  # without a prompt a graph is its own
    assert found.values.loc[there.index, "triad 030T"].notna().all()
    assert found.values.loc[there.index, "depth"].isna().all()


def test_graphs_from_elsewhere_that_are_in_the_summary_have_shapes():
    summary = summary_of(["p"], 0, ONE)
    facts = {"source": "published/haiku", "status": "traced", "depth": 0.7, "target": "", "prompt_id": "p"}
    both = pd.concat([summary, pd.DataFrame([{**facts, "name": "one"}])], ignore_index=True)
    found = measured(both, pd.concat([motifs_of(summary, 1), published(["one"], ["p"])]), facts_of(summary))
    there = found.graphs.index[found.graphs["source"] == "published/haiku"]
    assert len(there) == 1 and found.values.loc[there[0], "depth"] == 0.7
    assert np.isfinite(found.values.loc[there[0], "triad 030T"])


# ------------------------------------------------------------------------------------------------ derived


def test_what_is_derived_from_the_summary_is_right_by_hand():
    summary = summary_of(["p"], 0, ONE).assign(entropy=[0.0, 0.0, 5.0])
    summary["probability"] = [0.5, 0.001, 0.001]
    found = measured(summary, motifs_of(summary, 1))
    prompt, think, answer = (row_of(found, "p", target) for target in ("prompt", "think", "answer"))
    assert prompt["surprisal"] == pytest.approx(np.log(2))
    # sqrt(.002) exp(0) = .045 and the least of it and .002 is .002; sqrt(.002) exp(-5) = .0003
    assert [row["plausible"] for row in (prompt, think, answer)] == [1.0, 0.0, 1.0]
    assert prompt["linked_excess"] == pytest.approx(0.2 - 0.1)
    assert found.graphs["log_edges"].to_numpy() == pytest.approx(np.log(summary.sort_values("target")["edges"]))


def test_an_unknown_probability_is_neither_plausible_nor_implausible():
    summary = summary_of(["p"], 0, ONE).assign(probability=np.nan)
    assert measured(summary, motifs_of(summary, 1)).values["plausible"].isna().all()


def graph_of(prompt, latents, target="answer"):
    """An embedding, {(layer, latent): influence} and a logit, all joined, in one context of two tokens."""
    n = len(latents)
    facts = {"model": "distill", "seed": 0, "prompt_id": prompt, "target": target}
    feature = np.arange(1, n + 1)
    return make_graph(
        ("a", "b"), facts,
        kind=[EMBEDDING, *[FEATURE] * n, LOGIT], layer=[-1, *[layer for layer, _ in latents], 4],
        position=[0] * (n + 1) + [1], feature=[7, *[latent for _, latent in latents], 9],
        activation=[np.nan, *[1.0] * n, np.nan], influence=[0.5, *latents.values(), 0.0],
        probability=[np.nan] * (n + 1) + [0.9],
        source=[*[0] * n, *feature], target=[*feature, *[n + 1] * n], weight=np.ones(2 * n),
    )  # fmt: skip


def test_reused_share_is_the_influence_of_latents_that_half_of_the_other_prompts_hold():
    often, once, twice = (0, 5), (1, 5), (2, 8)
    graphs = [
        graph_of("p", {often: 0.3, once: 0.1}),
        graph_of("q", {often: 0.2, twice: 0.2}),
        graph_of("r", {often: 0.1, twice: 0.3}),
        graph_of("s", {often: 0.4, (1, 6): 0.1}),
        graph_of("p", {once: 0.3}, target="think"),  # no other prompt has this target
        no_graph(("a",), {"model": "distill", "seed": 0, "prompt_id": "z", "target": "answer"}, "failed"),
    ]
    table = facts_of_graphs(graphs, {})
    shares = {(row.prompt_id, row.target): row.reused_share for row in table.itertuples()}
    # `twice` is in one of three other graphs: under half
    expected = {"p": 0.75, "q": 0.5, "r": 0.25, "s": 0.8}
    assert {prompt: shares[prompt, "answer"] for prompt in expected} == pytest.approx(expected)
    assert np.isnan(shares["p", "think"]) and len(table) == 5
    assert set(table["source"]) == {"distill/seed0"} and set(table["context_tokens"]) == {2}


def test_a_graph_without_latents_reuses_nothing_that_could_be_said():
    table = facts_of_graphs([graph_of("p", {(0, 5): 0.3}), graph_of("q", {})], {})
    assert np.isnan(table.set_index("prompt_id")["reused_share"]["q"])


def test_links_are_asked_of_the_graphs_of_their_own_model_and_seed():
    held = {(0, 5): 0.3, (1, 5): 0.1}
    other = graph_of("p", {(0, 8): 0.2})
    other.facts["seed"] = 1
    links = pd.DataFrame([
        {"layer": layer, "latent": 5, "why": "graph", "stands_for": 5, "draw": 0, "crosscoder": "tiny",
         "correlation": 0.9, "linked": layer == 0, "tag": "reasoning_only"}
        for layer in (0, 1)
    ])  # fmt: skip
    table = facts_of_graphs([graph_of("p", held), other], {"distill/seed0": links}).set_index("source")
    assert table["linked_reasoning_only"]["distill/seed0"] == pytest.approx(0.75)
    assert np.isnan(table["linked_reasoning_only"]["distill/seed1"])


def test_graphs_from_elsewhere_are_summarised_under_their_prompt_or_their_name():
    graphs = {"one": graph_of("p", {(0, 5): 0.3}), "two": graph_of(None, {(2, 5): 0.3})}
    table = summary_elsewhere(graphs, "published/haiku", GRAPHS, GraphGates(feature_share=0.5, coverage=1.0))
    assert list(table["source"]) == ["published/haiku"] * 2 and list(table["name"]) == ["one", "two"]
    summary = pd.concat([summary_of(["p"], 0, ONE), table], ignore_index=True)
    found = measured(summary, motifs_of(summary_of(["p"], 0, ONE), 1), facts_of(summary_of(["p"], 0, ONE)))
    there = found.graphs["source"] == "published/haiku"
    assert list(found.graphs.loc[there, "prompt_id"]) == ["p", "two"]
    assert list(found.values.loc[there, "depth"]) == pytest.approx([0.0, 0.5])  # layers 0 and 2 of 4


def test_new_shares_are_means_over_crosscoders_of_shares_by_influence():
    keys = {"model": "distill", "seed": 0, "prompt_id": "p", "target": "answer"}
    rows = [
        {**keys, "crosscoder": name, "weighting": weighting, "quantity": quantity, "value": value, "random": random}
        for name, weighting, quantity, value, random in (
            ("a", "influence", "linked_reasoning_only", 0.4, 0.1),
            ("b", "influence", "linked_reasoning_only", 0.2, 0.2),
            ("a", "count", "linked_reasoning_only", 0.9, 0.9),
            ("a", "influence", "linked", 0.8, 0.8),
        )
    ]
    row = new_shares(pd.DataFrame(rows)).iloc[0]
    assert (row["source"], row["linked_reasoning_only"], row["linked_control"]) == pytest.approx(
        ("distill/seed0", 0.3, 0.15)
    )
