"""A change between models counts only beyond what a second seed of the same model changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasondiff.config import Comparisons
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.graphs.split import COLUMNS, DIRECTIONS, SHARED_BEGINNING, TracedSubject, split_changes
from reasondiff.graphs.wiring import QUANTITIES

LATENTS, WIDTH, PROMPTS = 12, 40, 8
TARGETS = ("think", "answer")
SETTINGS = Comparisons(
    published=None, min_prompts=6, min_samples=8, length_caliper=1.3, entropy_caliper=0.5, permutations=499,
    bootstrap=200, false_discovery_rate=0.1, seed=0,
)  # fmt: skip


def transcoders(seed: int) -> dict[int, Transcoder]:
    """Of one layer, by the seed a set began with; latents of two seeds are the same in another order."""
    draw = torch.Generator().manual_seed(0)
    encoder, decoder = (torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH, generator=draw)) for _ in range(2))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(LATENTS))
    return {0: Transcoder(encoder[order], torch.zeros(LATENTS), decoder[order], torch.zeros(WIDTH), None, 4, {})}


def graph(prompt: int, target: str, seed: int, strength: float, wiring: float, fewer: int, draw) -> object:
    """A token, five latents (or some `fewer`) and a logit; activations and virtual weights differ from the prompt's by
    random factors, the logarithms of which have these standard deviations."""
    own = np.random.default_rng([prompt, len(target)])
    order = np.random.default_rng(seed).permutation(LATENTS)
    latents = [int(np.flatnonzero(order == n)[0]) for n in range(5)]
    activation = own.uniform(0.5, 2, 5) * np.exp(strength * draw.normal(size=5))
    weight = own.normal(size=5) * np.exp(wiring * draw.normal(size=5))
    rows = [(EMBEDDING, -1, 0, 3, np.nan, 0.5, np.nan)]
    rows += [(FEATURE, 0, 0, n, a, 0.2, np.nan) for n, a in zip(latents, activation, strict=True)]
    rows.append((LOGIT, 1, 0, 7, np.nan, 0.0, 1.0))
    names = ("kind", "layer", "position", "feature", "activation", "influence", "probability")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    there = range(1, 6 - fewer)
    edges = [(0, n, 1.0) for n in there] + [(n, 6, activation[n - 1] * weight[n - 1]) for n in there]
    ends = dict(zip(("source", "target", "weight"), zip(*edges, strict=True), strict=True))
    every = make_graph(("x",), {"phase": target, "target_id": 7}, **columns, **ends)
    has_edge = np.isin(np.arange(every.n_nodes), [every.source, every.target])
    return every.part(has_edge, np.ones(every.n_edges, dtype=bool))


def subject(name: str, seed: int, strength: float, wiring: float, fewer=0, prompts=PROMPTS, draws=0):
    draw = np.random.default_rng([draws, seed])
    graphs = {
        (f"p{prompt}", target): graph(prompt, target, seed, strength, wiring, fewer, draw)
        for prompt in range(prompts)
        for target in TARGETS
    }
    return TracedSubject(name, graphs, transcoders(seed))


def base(**changes) -> TracedSubject:
    return subject("base/seed0", **{"seed": 0, "strength": 0.05, "wiring": 0.05, "draws": 1, **changes})


def other_seed(**changes) -> TracedSubject:
    return subject("base/seed1", **{"seed": 1, "strength": 0.05, "wiring": 0.05, "draws": 2, **changes})


def reasoning(**changes) -> TracedSubject:
    return subject("distill/seed0", **{"seed": 0, "strength": 0.05, "wiring": 0.05, "draws": 3, **changes})


@pytest.fixture(scope="module")
def unchanged():
    """The table of models that differ no more than the seeds do."""
    return split_changes(reasoning(), base(), other_seed(), SETTINGS)


def verdicts(table, second="base/seed1", target="all"):
    rows = table[table["second"].eq(second) & table["target"].eq(target) & table["comparison"].eq("reasoning - base")]
    return rows[rows["correspondence"] == "matched"].set_index("quantity")


def test_a_change_of_wiring_is_found_and_none_of_usage():
    rows = verdicts(split_changes(reasoning(wiring=1.0), base(), other_seed(), SETTINGS))

    assert rows.loc["wiring", "verdict"] == "found" and rows.loc["wiring", "difference_low"] > 0
    assert rows.loc["wiring_share", "verdict"] == "found"
    assert rows.loc["wiring", "p"] < 0.02 and rows.loc["usage_set", "p"] == 1
    assert rows.loc["usage_set", "verdict"] == "not found" and rows.loc["usage_set", "value"] == 0
    assert rows.loc["usage_strength", "value"] < rows.loc["wiring", "value"] / 5


def test_a_change_of_usage_is_found_and_none_of_wiring():
    rows = verdicts(split_changes(reasoning(strength=1.0), base(), other_seed(), SETTINGS))

    assert rows.loc["usage_strength", "verdict"] == "found"
    assert rows.loc["usage_strength", "value"] > 5 * rows.loc["wiring", "value"]


def test_latents_that_one_model_lacks_are_found_and_lessen_the_overlap():
    rows = verdicts(split_changes(reasoning(fewer=2), base(), other_seed(), SETTINGS))

    for quantity in ("usage_set", "node_overlap", "edge_overlap", "usage_set_share"):
        assert rows.loc[quantity, "verdict"] == "found"
    assert rows.loc["node_overlap", "difference_high"] < 0 and rows.loc["node_overlap", "p"] < 0.02
    assert rows.loc["wiring", "verdict"] == "not found"


def test_models_more_alike_than_two_seeds_are_no_finding():
    """The second seed lacks two latents; the models lack none, so that they overlap the more."""
    table = split_changes(reasoning(), base(), other_seed(fewer=2), SETTINGS)

    rows = verdicts(table, second="base/seed0")
    assert rows.loc["node_overlap", "difference_low"] > 0 and rows.loc["node_overlap", "p"] == 1
    assert rows.loc["node_overlap", "verdict"] == rows.loc["usage_set", "verdict"] == "not found"


def test_nothing_is_found_that_the_false_discovery_rate_does_not_allow():
    strict = SETTINGS.model_copy(update={"false_discovery_rate": 0.001})

    rows = verdicts(split_changes(reasoning(wiring=1.0), base(), other_seed(), strict))

    assert rows.loc["wiring", "difference_low"] > 0
    assert not rows["verdict"].eq("found").any()


def test_nothing_is_found_whose_interval_holds_zero():
    lenient = SETTINGS.model_copy(update={"false_discovery_rate": 1.0})

    table = split_changes(reasoning(), base(), other_seed(), lenient)

    holds_zero = (table["difference_low"] <= 0) & (table["difference_high"] >= 0)
    assert holds_zero.sum() > 20 and table.loc[holds_zero, "verdict"].eq("not found").all()


def test_what_the_second_seed_changes_as_well_is_not_found(unchanged):
    assert not unchanged["verdict"].eq("found").any()
    assert verdicts(unchanged).loc["total_change", "value"] > 0.01


def test_against_the_first_seed_no_difference_is_no_evidence():
    table = split_changes(reasoning(strength=0.001, wiring=0.001), base(), other_seed(), SETTINGS)

    rows = verdicts(table, second="base/seed0")
    assert rows.loc["wiring", ["verdict", "reason"]].tolist() == ["not found", SHARED_BEGINNING]
    assert rows.loc["wiring", "difference"] < 0
    assert verdicts(table).loc["wiring", "reason"] == ""


def test_there_are_three_contrasts_and_the_null_itself(unchanged):
    table = unchanged
    kinds = table[["comparison", "first", "second", "correspondence"]].drop_duplicates().values.tolist()
    assert kinds == [
        ["reasoning - base", "distill/seed0", "base/seed0", "index"],
        ["reasoning - base", "distill/seed0", "base/seed0", "matched"],
        ["reasoning - base", "distill/seed0", "base/seed1", "matched"],
        ["seed 1 - seed 0", "base/seed1", "base/seed0", "matched"],
    ]
    assert list(table.columns) == COLUMNS
    assert len(table) == 4 * 3 * len(QUANTITIES)  # think, answer, all
    null = table[table["comparison"] == "seed 1 - seed 0"].set_index(["target", "quantity"])
    beside = table[table["second"].eq("base/seed1") & table["first"].eq("distill/seed0")]
    beside = beside.set_index(["target", "quantity"])
    for figure in ("value", "low", "high", "n"):
        assert null[figure].tolist() == pytest.approx(beside[f"null_{figure}"].tolist(), nan_ok=True)
    assert null["verdict"].eq("").all()


def test_transcoders_without_a_common_beginning_are_matched_only():
    table = split_changes(reasoning(seed=5), base(), other_seed(), SETTINGS)

    assert table["correspondence"].unique().tolist() == ["matched"]
    assert table["value"][table["quantity"] == "without_partner"].eq(0).all()


def test_a_figure_is_the_mean_over_prompts_of_the_mean_over_targets():
    """With one prompt that has a single target: it counts as much as one with two."""
    some = reasoning(wiring=0.5)
    lacking = TracedSubject(
        some.name, {key: one for key, one in some.graphs.items() if key != ("p3", "think")}, some.transcoders
    )

    rows = split_changes(lacking, base(), other_seed(), SETTINGS).set_index(
        ["second", "correspondence", "target", "quantity"]
    )
    think, answer, both = (
        rows.loc[("base/seed0", "index", target, "wiring"), "value"] for target in ("think", "answer", "all")
    )
    alone = TracedSubject(some.name, {("p3", "answer"): some.graphs["p3", "answer"]}, some.transcoders)
    single = split_changes(alone, base(), None, SETTINGS).set_index(["correspondence", "target", "quantity"])
    only = single.loc[("index", "all", "wiring"), "value"]

    assert both == pytest.approx((7 * think / 2 + (8 * answer - only) / 2 + only) / 8)


def test_contexts_that_only_one_of_the_models_was_asked_about_take_no_part(unchanged):
    asked = reasoning()
    correct = {(prompt, "correct"): graph for (prompt, _), graph in asked.graphs.items()}
    more = [TracedSubject(asked.name, {**asked.graphs, **correct}, asked.transcoders)]
    for one in (base(), other_seed()):
        own = {(prompt, "own"): graph for (prompt, _), graph in one.graphs.items()}
        more.append(TracedSubject(one.name, {**one.graphs, **own}, one.transcoders))

    assert split_changes(*more, SETTINGS).equals(unchanged)


def test_a_graph_that_could_not_be_made_is_counted_as_missing():
    some = reasoning()
    failed = {**some.graphs, ("p0", "think"): no_graph(("x",), {"phase": "think"}, "too long")}

    table = split_changes(TracedSubject(some.name, failed, some.transcoders), base(), other_seed(), SETTINGS)

    rows = table[table["quantity"].eq("wiring") & table["second"].eq("base/seed1")].set_index("target")
    assert rows.loc["think", ["missing", "n", "difference_n", "null_n"]].tolist() == [1, 7, 7, 8]
    assert rows.loc["answer", ["missing", "n"]].tolist() == [0, 8]
    assert rows.loc["think", "phase"] == "think" and rows.loc["all", "phase"] == "all"


def test_few_prompts_are_not_tested():
    table = split_changes(reasoning(prompts=5), base(prompts=5), other_seed(prompts=5), SETTINGS)

    rows = verdicts(table)
    assert rows["verdict"].eq("not testable").all()
    assert rows.loc["wiring", "reason"] == "5 prompts have both, 6 are needed"
    assert np.isfinite(rows.loc["wiring", "value"]) and np.isnan(rows.loc["wiring", "low"])


def test_without_a_second_seed_nothing_is_tested():
    table = split_changes(reasoning(wiring=1.0), base(), None, SETTINGS)

    assert table["verdict"].eq("not testable").all() and table["difference"].isna().all()
    assert table["second"].eq("base/seed0").all()


def test_every_quantity_has_a_direction():
    assert set(DIRECTIONS) == set(QUANTITIES)
