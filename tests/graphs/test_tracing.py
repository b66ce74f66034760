from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import reasondiff.graphs.tracing as tracing
from reasondiff.config import Graphs
from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, read_graph, write_graph
from reasondiff.graphs.influence import influences, scores
from reasondiff.graphs.interventions import COLUMNS
from reasondiff.graphs.replaced import compare_replaced
from reasondiff.graphs.replacement import open_replacement, own_model
from reasondiff.graphs.targets import Target
from reasondiff.graphs.tracing import COSTS, Files, Subject, TraceError, select_targets, trace, trace_all
from reasondiff.models.load import ModelError
from reasondiff.store import ArtefactError, read_card, read_table

IDS = (300, 7, 41, 300, 12, 99, 230, 7, 18, 55, 260, 31)
SETTINGS = Graphs.model_validate(
    {
        "window": 6, "max_features": 40, "batch_size": 16, "runners_up": 1, "stored_share": 0.9, "stored_nodes": 60,
        "prune_nodes": 0.8, "prune_edges": 0.98, "prompts_of_job": 2, "viewer_examples": 0, "labelled": 0,
        "interventions": {"features": 4, "quantiles": 2, "matched": 2, "bootstrap": 100, "seed": 0},
        "links": None, "seed": 0,
    }
)  # fmt: skip


def target(**changes):
    values = {
        "prompt_id": "sum", "category": "arithmetic", "target": "answer", "phase": "answer", "model": "qwen2",
        "decoding": "greedy", "sample": 0, "ids": IDS, "target_id": 17, "target_token": " x", "probability": 0.5,
        "entropy": 1.0, "rank": 3, "reason": None,
    }  # fmt: skip
    return Target(**{**values, **changes})


@pytest.fixture(scope="module")
def subject(small_models, trained_transcoders):
    return Subject(small_models["qwen2"], 0, trained_transcoders, ("a", "b", "c"), 2, "cpu")


@pytest.fixture(scope="module")
def model(small_models, trained_transcoders, small_tokenizer):
    return open_replacement(small_models["qwen2"], trained_transcoders, small_tokenizer, "cpu", SETTINGS.window)


@pytest.fixture(scope="module")
def graph(model, subject):
    return trace(model, subject, target(), SETTINGS)


NOTHING = target(ids=(), target_id=-1, reason="the response has no think phase")


@pytest.fixture
def written(monkeypatch):
    """Paths of the graphs that were written since."""
    paths = []
    monkeypatch.setattr(
        tracing, "write_graph", lambda path, graph, card: paths.append(path) or write_graph(path, graph, card)
    )
    return paths


def files_in(folder, count):
    return [Files(str(folder / f"{one}/graph.npz"), str(folder / f"{one}/interventions.tsv")) for one in range(count)]


def bytes_of(files):
    return [[open(path, "rb").read() for path in (one.graph, one.interventions)] for one in files]


# ------------------------------------------------------------------------------------------------ one target


def test_the_graph_is_of_the_very_ids_that_were_given(graph, small_tokenizer):
    tokens = graph.nodes_of(EMBEDDING)
    assert graph.feature[tokens].tolist() == list(IDS) == graph.facts["ids"]
    assert graph.position[tokens].tolist() == list(range(len(IDS)))
    assert graph.tokens == tuple(small_tokenizer.decode([one]) for one in IDS)


def test_the_facts_are_those_of_the_traced_model(graph, model, subject):
    facts = graph.facts
    with torch.no_grad():
        logits = own_model(model)(torch.tensor([IDS])).logits[0, -1].double()
    chances = logits.softmax(0)
    assert facts["probability"] == pytest.approx(float(chances[17]), rel=1e-4)
    assert facts["entropy"] == pytest.approx(float(-(chances * chances.log()).sum()), rel=1e-4)
    assert facts["logit_difference"] == pytest.approx(float(logits[17] - logits.mean()), rel=1e-3)
    replaced = compare_replaced(own_model(model), subject.transcoders, torch.tensor(IDS), logits.float(), 2)
    assert facts["replaced_kl"] == pytest.approx(replaced.kl, rel=1e-3) and facts["replaced_kl"] > 1e-4
    assert facts["replaced_top1"] == replaced.top1
    logit = graph.nodes_of(LOGIT)
    assert sorted(facts["logit_tokens"]) == sorted(str(one) for one in graph.feature[logit]) and len(logit) == 2
    named = {name: facts[name] for name in ("model", "seed", "prompt_id", "target", "phase", "status", "reason")}
    assert named == {
        "model": "qwen2", "seed": 0, "prompt_id": "sum", "target": "answer", "phase": "answer", "status": "traced",
        "reason": None,
    }  # fmt: skip
    assert (facts["blocks"], facts["features"], facts["coverage"]) == (3, 40, 1.0) and facts["active"] > 40


def test_scores_and_influences_are_those_of_the_whole_graph(graph):
    found = scores(graph)
    for name in ("replacement", "completeness", "feature_share", "share_layer0", "share_target_position", "share_rest"):
        assert graph.facts[name] == getattr(found, name)
    assert np.array_equal(graph.influence, influences(graph).astype(np.float32))
    assert 0 < graph.facts["share_skip"] < graph.facts["feature_share"] < 1
    assert 0 < graph.facts["included"] < 1


def test_however_few_latents_are_in_a_graph_the_edges_into_its_logit_have_the_same_sum(graph, model, subject):
    few = trace(model, subject, target(), SETTINGS.model_copy(update={"max_features": 5}))

    def into_target(of):
        logit = np.flatnonzero((of.kind == LOGIT) & (of.feature == 17))
        return float(of.weight[of.target == logit].sum())

    assert into_target(few) == pytest.approx(into_target(graph), rel=1e-4)
    assert few.facts["feature_share"] < graph.facts["feature_share"]


def test_latents_stand_only_at_the_last_positions(graph):
    latents = graph.nodes_of(FEATURE)
    assert graph.position[latents].min() >= len(IDS) - SETTINGS.window
    errors = graph.nodes_of(ERROR)
    assert sorted(set(graph.position[errors].tolist())) == list(range(len(IDS)))


def test_blocks_without_a_transcoder_are_reported(small_models, trained_transcoders, small_tokenizer):
    some = {1: trained_transcoders[1]}
    subject = Subject(small_models["qwen2"], 0, some, ("b",), 2, "cpu")
    model = open_replacement(subject.info, some, small_tokenizer, "cpu", None)
    found = trace(model, subject, target(), SETTINGS)
    assert found.facts["coverage"] == pytest.approx(1 / 3)
    assert set(found.layer[found.nodes_of(FEATURE)].tolist()) == {1}


def test_where_no_latent_fires_all_is_error(subject, small_tokenizer):
    silent = {layer: replace(one, encoder_bias=one.encoder_bias - 1e6) for layer, one in subject.transcoders.items()}
    of = replace(subject, transcoders=silent)
    model = open_replacement(of.info, silent, small_tokenizer, "cpu", SETTINGS.window)
    found = trace(model, of, target(), SETTINGS)
    assert len(found.nodes_of(FEATURE)) == found.facts["features"] == 0 and found.n_edges > 0
    assert (found.facts["feature_share"], found.facts["share_skip"], found.facts["included"]) == (0, 0, 1)


def test_two_tokens_are_context_enough(model, subject):
    found = trace(model, subject, target(ids=IDS[:2]), SETTINGS)
    assert set(found.position[found.nodes_of(FEATURE)].tolist()) == {1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": (300,)}, "1 token"),
        ({"ids": tuple(range(400)) * 2}, "800 tokens, the model takes 512"),
        ({"ids": (*IDS, 420)}, r"ids \[420\] are not in the model's vocabulary of 420"),
        ({"target_id": -1}, r"\[-1\]"),
    ],
)
def test_targets_that_cannot_be_are_refused(changes, says, model, subject):
    with pytest.raises(TraceError, match=says):
        trace(model, subject, target(**changes), SETTINGS)


def test_a_model_whose_logits_are_not_the_originals_is_not_traced(small_models, trained_transcoders, small_tokenizer):
    subject = Subject(small_models["qwen2"], 0, trained_transcoders, ("a", "b", "c"), 2, "cpu")
    model = open_replacement(subject.info, trained_transcoders, small_tokenizer, "cpu", None)
    model.blocks[1].attn.W_O.data *= 1.01
    with pytest.raises(ModelError, match="other logits"):
        trace(model, subject, target(), SETTINGS)


# ------------------------------------------------------------------------------------------------ all targets


def test_every_target_gets_its_files_and_equal_inputs_give_equal_bytes(subject, tmp_path):
    targets = [target(), target(prompt_id="other", ids=IDS[:9], target_id=3)]
    files = [files_in(tmp_path / name, 2) for name in ("first", "second")]
    costs = [trace_all(subject, targets, some, SETTINGS, "code", None) for some in files]
    assert bytes_of(files[0]) == bytes_of(files[1])
    assert list(costs[0].columns) == COSTS
    assert costs[0]["tokens"].tolist() == [12, 9] and costs[0]["status"].tolist() == ["traced", "traced"]
    assert (costs[0]["seconds"] > 0).all() and (costs[0]["peak_memory_gib"] > 0).all()
    for one, file in zip(targets, files[0], strict=True):
        graph, table = read_graph(file.graph), read_table(file.interventions)
        assert graph.facts["ids"] == list(one.ids) and graph.facts["target_id"] == one.target_id
        assert 0 < len(graph.nodes_of(FEATURE)) <= 40 == graph.facts["features"]
        assert len(graph.nodes_of(FEATURE)) + len(graph.nodes_of(ERROR)) <= SETTINGS.stored_nodes < 40 + 3 * 9
        assert list(table.columns) == COLUMNS and len(table) == 12  # four and two latents, ablated and doubled


def test_a_prompt_without_such_a_target_has_an_empty_graph_that_says_why(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "open_replacement", lambda *_: pytest.fail("it takes no model to say so"))
    files = files_in(tmp_path, 1)
    costs = trace_all(subject, [NOTHING], files, SETTINGS, "code", None)
    graph = read_graph(files[0].graph)
    assert graph.n_nodes == 0
    assert (graph.facts["status"], graph.facts["reason"]) == ("none", "the response has no think phase")
    assert costs["status"].tolist() == ["none"] and costs["features"].isna().all()
    assert list(read_table(files[0].interventions).columns) == COLUMNS


def test_a_target_that_fails_is_named_and_takes_no_other_with_it(subject, tmp_path, caplog):
    targets = [target(prompt_id="strange", ids=(*IDS, 9999)), target()]
    files = files_in(tmp_path, 2)
    with caplog.at_level(logging.INFO):
        costs = trace_all(subject, targets, files, SETTINGS, "code", None)
    assert costs["status"].tolist() == ["failed", "traced"]
    failed = read_graph(files[0].graph)
    assert failed.n_nodes == 0 and failed.facts["reason"].startswith("TraceError: ids [9999] are not")
    assert "Traceback" in caplog.text and "strange, target answer" in caplog.text
    assert len(read_table(files[0].interventions)) == 0 and len(read_table(files[1].interventions)) == 12


def test_finished_targets_are_kept_and_failed_ones_tried_again(subject, tmp_path, monkeypatch):
    targets, files = [target(prompt_id="first"), target(prompt_id="second")], files_in(tmp_path, 2)
    traced = []

    def count(model, subject, one, settings):
        traced.append(one.prompt_id)
        if one.prompt_id == "second" and traced.count("second") == 1:
            raise RuntimeError("by chance")
        return trace(model, subject, one, settings)

    monkeypatch.setattr(tracing, "trace", count)
    before = trace_all(subject, targets, files, SETTINGS, "code", None)
    assert before["status"].tolist() == ["traced", "failed"]
    after = trace_all(subject, targets, files, SETTINGS, "code", before)
    assert traced == ["first", "second", "second"]
    assert after["status"].tolist() == ["traced", "traced"] and after["seconds"][0] == before["seconds"][0]
    again = trace_all(subject, targets, files, SETTINGS, "code", None)
    assert len(traced) == 3 and again["tokens"].tolist() == [12, 12] and again["seconds"].isna().all()


CHANGES = {
    "nothing": {},
    "code": {"code": "other"},
    "stored nodes": {"settings": SETTINGS.model_copy(update={"stored_nodes": 9})},
    "window": {"settings": SETTINGS.model_copy(update={"window": 7})},
    "interventions": {
        "settings": SETTINGS.model_copy(
            update={"interventions": SETTINGS.interventions.model_copy(update={"features": 1})}
        )
    },
    "target": {"targets": [replace(NOTHING, category="multihop")]},
    "what is shown": {"settings": SETTINGS.model_copy(update={"prune_nodes": 0.7, "viewer_examples": 9})},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_target_is_traced_anew_when_what_made_it_changes(change, subject, tmp_path, written):
    given = {"targets": [NOTHING], "settings": SETTINGS, "code": "code", "before": None}
    files = files_in(tmp_path, 1)
    trace_all(subject, files=files, **given)
    trace_all(subject, files=files, **{**given, **CHANGES[change]})
    assert len(written) == (1 if change in ("nothing", "what is shown") else 2)


def test_a_target_is_traced_anew_for_other_transcoders_or_half_a_result(subject, tmp_path, written):
    files = files_in(tmp_path, 1)
    other = replace(subject, digests=("a", "b", "d"))
    for of in (subject, other, other):
        trace_all(of, [NOTHING], files, SETTINGS, "code", None)
    assert len(written) == 2
    (tmp_path / "0" / "interventions.tsv").unlink()
    trace_all(other, [NOTHING], files, SETTINGS, "code", None)
    assert len(written) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, torch.AcceleratorError])
def test_what_ends_the_job_is_no_failed_target(error, subject, tmp_path, monkeypatch):
    def fail(*_):
        raise error("CUDA error: device-side assert triggered")

    done, files = [target(prompt_id="first"), target(prompt_id="second")], files_in(tmp_path, 2)
    trace_all(subject, done[:1], files[:1], SETTINGS, "code", None)
    monkeypatch.setattr(tracing, "trace", fail)
    with pytest.raises(error):
        trace_all(subject, done, files, SETTINGS, "code", None)
    assert read_card(files[0].graph)["status"] == "traced" and not (tmp_path / "1").exists()


def test_targets_are_taken_in_the_order_of_the_files():
    known = [target(prompt_id="a"), target(prompt_id="b"), target(prompt_id="b", target="think")]
    assert select_targets(known, [["b", "think"], ["a", "answer"]]) == [known[2], known[0]]
    with pytest.raises(ArtefactError, match="lacks c answer"):
        select_targets(known, [["c", "answer"]])


def test_costs_have_a_row_for_every_target_that_is_kept(subject, tmp_path):
    nothing, files = [replace(NOTHING, prompt_id=one) for one in "ab"], files_in(tmp_path, 2)
    for before in (None, pd.DataFrame(columns=COSTS), None):
        costs = trace_all(subject, nothing, files, SETTINGS, "code", before)
        assert costs["prompt_id"].tolist() == ["a", "b"] and costs["model"].tolist() == ["qwen2"] * 2
