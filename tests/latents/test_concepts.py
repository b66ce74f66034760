"""The candidate that tells a concept is found on one part and reported on another, and no baseline is favoured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from reasondiff.config import Concepts, Split
from reasondiff.dictionaries.code import active
from reasondiff.dictionaries.crosscoder import fold
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.latents.concept_candidates import latents, neurons, of_columns, probe, random_directions
from reasondiff.latents.concept_probes import fit_probes
from reasondiff.latents.concept_reading import ReadPart, read_part, why_not_testable
from reasondiff.latents.concept_scores import Judge, Responses, figures_of
from reasondiff.latents.concept_table import COLUMNS, KINDS, concept_table
from reasondiff.latents.concepts import (
    measure_concepts,
    measure_transcoder_concepts,
    neurons_beside,
    point_and_seed,
    untrained_beside,
)
from reasondiff.models.load import ModelError
from reasondiff.models.neurons import recorded_neurons
from reasondiff.models.stream import ActivationStream, calibrate, unmasked
from reasondiff.store import ArtefactError, write_table
from reasondiff.text.concepts import CONCEPT_NAMES, mark_concepts
from reasondiff.text.corpus import openr1_rows
from reasondiff.text.preparation import explode
from reasondiff.text.tokens import tokenize_documents
from reasondiff.text.traces import PREFIX

SETTINGS = Concepts(pairs=("a-b",), tokens=4000, untrained_tokens=1, ridge=1e-3, bootstrap=200, seed=0)
PLANTED = CONCEPT_NAMES.index("operator")
NAME = ("btk", 0)

# ------------------------------------------------------------------------------------------------ F1 and AUROC


def by_hand(values: np.ndarray, silent: np.ndarray, mark: np.ndarray) -> tuple[float, np.ndarray, float]:
    """(best F1, the tokens let in by the highest cut that has it, AUROC), by trying every cut and every pair."""
    best, cut = 0.0, np.zeros(len(values), dtype=bool)
    for value in sorted(set(values[~silent].tolist()), reverse=True):
        fires = (values >= value) & ~silent
        f1 = 2 * (fires & mark).sum() / (fires.sum() + mark.sum())
        if f1 > best:
            best, cut = f1, fires
    ranked = np.where(silent, -np.inf, values)
    pairs = [(x > y) + 0.5 * (x == y) for x in ranked[mark] for y in ranked[~mark]]
    return best, cut, float(np.mean(pairs))


def cases():
    """Responses of candidates with many ties, none, or of both signs; some silent on all or on no token."""
    generator = np.random.default_rng(0)
    for case in range(40):
        tokens, candidates = int(generator.integers(5, 40)), int(generator.integers(1, 6))
        silent = generator.random((candidates, tokens)) < generator.choice([0, 0.5, 0.9, 1], (candidates, 1))
        values = generator.integers(1, 6, silent.shape) if case % 2 else generator.normal(size=silent.shape)
        if not case % 2 and silent.any():
            values = np.abs(values) + 0.1
        yield values.astype(np.float32), silent, generator.random((3, tokens)) < 0.3, generator


def entries(values, silent, order=None) -> Responses:
    candidate, token = np.nonzero(~silent)
    order = np.arange(len(token)) if order is None else order(len(token))
    candidate, token = candidate[order], token[order]
    return Responses(candidate, token, values[candidate, token], *values.shape)


def test_figures_equal_trying_every_cut_and_every_pair_ties_included():
    compared = 0
    for values, silent, marks, generator in cases():
        found = figures_of(entries(values, silent), marks)
        shuffled = figures_of(entries(values, silent, generator.permutation), marks)
        for name in ("f1", "threshold", "auroc"):
            np.testing.assert_array_equal(getattr(found, name), getattr(shuffled, name))
        for candidate, concept in np.ndindex(found.f1.shape):
            mark = marks[concept]
            if mark.all() or not mark.any():
                assert np.isnan(found.f1[candidate, concept]) and np.isnan(found.auroc[candidate, concept])
                continue
            f1, cut, auroc = by_hand(values[candidate], silent[candidate], mark)
            assert found.f1[candidate, concept] == pytest.approx(f1)
            assert found.auroc[candidate, concept] == pytest.approx(auroc)
            fires = (values[candidate] > found.threshold[candidate, concept]) & ~silent[candidate]
            assert (fires == cut).all()
            compared += 1
    assert compared > 200


def test_a_small_case_worked_out_on_paper():
    """Responses 4 3 3 2 and two silent tokens; the concept is tokens 0, 2 and 4.

    Cuts: {0}: 2*1/(1+3) = .5; {0, 1, 2}: 2*2/(3+3) = .667; all four: 2*2/(4+3) = .571. Threshold halfway 3 to 2.
    AUROC: token 0 beats 1, 3, 5: 3; token 2 ties with 1, beats 3, 5: 2.5; token 4 ties with 5: .5; of 9 pairs.
    """
    responses = Responses(np.zeros(4, int), np.arange(4), np.array([4, 3, 3, 2], np.float32), 1, 6)
    found = figures_of(responses, np.array([[1, 0, 1, 0, 1, 0]], dtype=bool))
    assert found.f1[0, 0] == pytest.approx(2 / 3)
    assert found.threshold[0, 0] == 2.5
    assert found.auroc[0, 0] == pytest.approx(6 / 9)


def test_a_threshold_with_only_silence_below_is_zero():
    responses = Responses(np.zeros(2, int), np.array([0, 1]), np.array([5, 2], np.float32), 1, 5)
    found = figures_of(responses, np.array([[1, 1, 0, 0, 0]], dtype=bool))
    assert found.f1[0, 0] == 1 and found.threshold[0, 0] == 0


def test_responses_that_are_not_numbers_are_refused():
    responses = Responses(np.zeros(1, int), np.zeros(1, int), np.array([np.nan], np.float32), 1, 2)
    with pytest.raises(ValueError, match="not finite"):
        figures_of(responses, np.ones((1, 2), dtype=bool))
    with pytest.raises(ValueError, match="at most 65536 and 16"):
        figures_of(Responses(*[np.zeros(0, int)] * 2, np.zeros(0, np.float32), 1, 2), np.ones((17, 2), dtype=bool))


# ------------------------------------------------------------------------------------------------ intervals


def test_the_report_on_the_same_tokens_is_the_figure():
    for values, silent, marks, generator in cases():
        found, responses = figures_of(entries(values, silent), marks), entries(values, silent)
        judge = Judge(marks, generator.integers(0, 8, marks.shape[1]), 100, 0)
        for candidate, concept in np.ndindex(found.f1.shape):
            if 0 < marks[concept].sum() < marks.shape[1]:
                own = responses.candidates == candidate
                threshold = found.threshold[candidate, concept]
                said = judge.report(concept, responses.tokens[own], responses.values[own], threshold)
                assert said.f1 == pytest.approx(found.f1[candidate, concept])
                assert said.auroc == pytest.approx(found.auroc[candidate, concept])


def correlated(problems=60, per_problem=30, seed=0):
    """Responses and marks whose relation differs from problem to problem."""
    generator = np.random.default_rng(seed)
    problem = np.repeat(np.arange(problems), per_problem)
    mark = generator.random(len(problem)) < generator.uniform(0.05, 0.4, problems)[problem]
    values = generator.normal(size=len(problem)) + mark * generator.normal(1, 1, problems)[problem]
    return values.astype(np.float32), mark, problem


def test_intervals_are_those_of_resampled_problems():
    """Against drawing problems with all their tokens and sorting each draw anew."""
    values, mark, problem = correlated()
    tokens = np.arange(len(values))
    said = Judge(mark[None], problem, 400, 0).report(0, tokens, values, 0.7)
    generator, f1, auroc = np.random.default_rng(1), [], []
    of_problem = [np.flatnonzero(problem == number) for number in range(60)]
    for _ in range(400):
        drawn = np.concatenate([of_problem[number] for number in generator.integers(0, 60, 60)])
        fires, ranks = values[drawn] > 0.7, pd.Series(values[drawn]).rank().to_numpy()
        positive = mark[drawn].sum()
        f1.append(2 * (fires & mark[drawn]).sum() / (fires.sum() + positive))
        won = ranks[mark[drawn]].sum() - positive * (positive + 1) / 2
        auroc.append(won / positive / (len(drawn) - positive))
    for low, high, drawn in ((said.f1_low, said.f1_high, f1), (said.auroc_low, said.auroc_high, auroc)):
        width = np.percentile(drawn, 97.5) - np.percentile(drawn, 2.5)
        assert abs(low - np.percentile(drawn, 2.5)) < 0.15 * width
        assert abs(high - np.percentile(drawn, 97.5)) < 0.15 * width


def test_tokens_of_one_problem_do_not_count_as_so_many():
    """Every token ten times over, within its problem: the figures and their intervals stay as wide as they were."""
    values, mark, problem = correlated()
    once = Judge(mark[None], problem, 300, 0).report(0, np.arange(len(values)), values, 0.7)
    many = Judge(np.repeat(mark, 10)[None], np.repeat(problem, 10), 300, 0)
    tenfold = many.report(0, np.arange(10 * len(values)), np.repeat(values, 10), 0.7)
    assert tenfold.f1_high - tenfold.f1_low == pytest.approx(once.f1_high - once.f1_low)
    assert tenfold.auroc_high - tenfold.auroc_low == pytest.approx(once.auroc_high - once.auroc_low)


def test_a_perfect_teller_is_perfect_in_every_resample():
    _, mark, problem = correlated()
    tokens = np.flatnonzero(mark)
    said = Judge(mark[None], problem, 100, 0).report(0, tokens, np.ones(len(tokens), np.float32), 0.0)
    assert (said.f1, said.f1_low, said.f1_high, said.auroc, said.auroc_low, said.auroc_high) == (1,) * 6


# ------------------------------------------------------------------------------------------------ searches


def made_up(mark, x, latents_of=None, problem=None, masked=0) -> ReadPart:
    """A part whose tokens belong to one concept, PLANTED, where `mark` says so."""
    marks = np.zeros((len(CONCEPT_NAMES), len(mark)), dtype=bool)
    marks[PLANTED] = mark
    x = torch.as_tensor(x, dtype=torch.float32)
    anywhere = marks.sum(1)
    anywhere[PLANTED] += masked
    return ReadPart(
        marks=marks,
        marked_anywhere=anywhere,
        problem=np.arange(len(mark)) // 20 if problem is None else problem,
        x=x[:, None],
        centred=x - x.mean(0),
        codes={} if latents_of is None else {NAME: active(torch.as_tensor(latents_of, dtype=torch.float32))},
        beside=None,
    )


def random_part(seed, tokens=1200, units=12, share=0.15):
    generator = np.random.default_rng(seed)
    return generator.random(tokens) < share, generator.normal(size=(tokens, units)), generator


def only(table: pd.DataFrame, **equal) -> pd.Series:
    """The one row with these values."""
    rows = table[np.logical_and.reduce([table[name] == value for name, value in equal.items()])]
    assert len(rows) == 1, f"{len(rows)} rows with {equal}"
    return rows.iloc[0]


def planted_codes(mark, seed, carrier, latents_=40):
    """Latents that fire on 10 % of all tokens, and one that fires on the concept alone."""
    generator = np.random.default_rng(seed)
    code = generator.random((len(mark), latents_)) * (generator.random((len(mark), latents_)) < 0.1)
    if carrier is not None:
        code[:, carrier] = mark * generator.uniform(1, 2, len(mark))
    return code


def test_the_latent_that_carries_a_concept_is_found_and_is_perfect():
    parts = []
    for seed in (0, 1):
        mark, x, _ = random_part(seed)
        parts.append(made_up(mark, x, planted_codes(mark, seed, carrier=23)))
    table = concept_table(3, *parts, [latents(NAME, 40, "pair")], SETTINGS)
    for by in ("f1", "auroc"):
        row = only(table, concept="operator", picked_by=by)
        assert (row["unit"], row["f1"], row["f1_low"], row["auroc"], row["f1_choose"]) == (23, 1, 1, 1, 1)
        assert (row["candidates"], row["n_tokens"], row["n_problems"]) == (40, 1200, 60)
        assert row["n_positive"] == parts[1].marks[PLANTED].sum()


def test_what_is_picked_does_not_depend_on_the_part_that_is_reported():
    """On `choose` latent 5 carries the concept, on `score` latent 8 does: 5 is reported, and is worth little."""
    (mark, x, _), (other, y, _) = random_part(0), random_part(1)
    choose = made_up(mark, x, planted_codes(mark, 0, carrier=5))
    honest = made_up(other, y, planted_codes(other, 1, carrier=5))
    poisoned = made_up(other, y, planted_codes(other, 1, carrier=8))
    tables = [concept_table(3, choose, score, [latents(NAME, 40, "pair")], SETTINGS) for score in (honest, poisoned)]
    rows = [only(table, concept="operator", picked_by="f1") for table in tables]
    for name in ("unit", "threshold", "f1_choose", "auroc_choose", "candidates"):
        assert rows[0][name] == rows[1][name]
    assert rows[0]["f1"] == 1 and rows[1]["f1"] < 0.3
    assert 0.4 < rows[1]["auroc"] < 0.6


def test_what_is_reported_does_not_depend_on_the_part_that_was_picked_on():
    """Once candidate and threshold are the same, other tokens of `choose` change no reported figure."""
    mark, x, _ = random_part(1)
    score = made_up(mark, x, planted_codes(mark, 1, carrier=5))
    reported = []
    for seed in (2, 3):
        own, z, _ = random_part(seed)
        choose = made_up(own, z, planted_codes(own, seed, carrier=5))
        table = concept_table(3, choose, score, [latents(NAME, 40, "pair")], SETTINGS)
        reported.append(only(table, concept="operator", picked_by="auroc")[["unit", "auroc", "auroc_low", "f1"]])
    assert reported[0].equals(reported[1])


def test_each_tag_is_searched_apart():
    mark, x, _ = random_part(0)
    parts = [made_up(mark, x, planted_codes(mark, seed, carrier=23)) for seed in (0, 1)]
    tags = ["other"] * 10 + ["shared"] * 20 + ["dead"] * 10
    table = concept_table(3, *parts, [latents(NAME, 40, "pair", tags)], SETTINGS)
    found = table[(table["concept"] == "operator") & (table["picked_by"] != "auroc")].set_index("tag")
    assert found.loc["all", "unit"] == found.loc["shared", "unit"] == 23
    assert found.loc["shared", "candidates"] == 20 and found.loc["other", "candidates"] == 10
    assert found.loc["other", "unit"] < 10 and found.loc["other", "f1"] < 0.5
    assert found.loc["reasoning_only", "reason"] == "no latent has this tag"
    assert np.isnan(found.loc["reasoning_only", "f1"])


def test_chance_stays_chance():
    """A concept that has nothing to do with the activations: the best of many random directions and of all units is
    worth no more on `score` than saying yes to every token, F1 = 2 p / (1 + p), and no better than a coin by AUROC."""
    parts = [made_up(*random_part(seed, tokens=6000)[:2]) for seed in (0, 1)]
    flat = lambda part: part.x[:, 0]  # noqa: E731
    searches = [
        random_directions(lambda part: part.centred, parts[0], 300, "pair", [NAME], 0),
        neurons(flat, 12, "one"),
    ]
    table = concept_table(3, *parts, searches, SETTINGS)
    share = parts[1].marks[PLANTED].mean()
    chance = 2 * share / (1 + share)
    assert set(table["kind"]) == {"random direction", "neuron"}
    assert (table["f1"] < chance + 0.02).all() and table["auroc"].between(0.46, 0.54).all()
    assert (table["auroc_choose"] > 0.5).all()  # picking alone looks better than chance


def test_a_unit_may_tell_a_concept_by_being_low():
    parts = []
    for seed in (0, 1):
        mark, x, _ = random_part(seed)
        x[:, 7] -= 20 * mark
        parts.append(made_up(mark, x))
    table = concept_table(3, *parts, [neurons(lambda part: part.x[:, 0], 12, "one")], SETTINGS)
    row = only(table, concept="operator", picked_by="f1")
    assert (row["unit"], row["sign"], row["f1"], row["candidates"], row["model"]) == (7, -1, 1, 24, "one")
    assert 5 < row["threshold"] < 20  # of minus the unit


def separable(seed):
    """A concept written across all units: no single one tells it."""
    mark, x, _ = random_part(seed, tokens=2000)
    return made_up(mark, x + 1.6 * mark[:, None] * np.resize([1, -1, 1], 12))


def test_a_probe_tells_more_than_the_best_neuron():
    parts = [separable(seed) for seed in (0, 1)]
    fitted = fit_probes(parts[0].centred, torch.from_numpy(parts[0].marks.T), SETTINGS.ridge)
    searches = [neurons(lambda part: part.x[:, 0], 12, "one"), probe(fitted, lambda part: part.centred, "one")]
    table = concept_table(3, *parts, searches, SETTINGS)
    neuron, ceiling = (only(table, picked_by="f1", kind=kind) for kind in ("neuron", "probe"))
    assert ceiling["f1"] > 0.95 and ceiling["f1_low"] > neuron["f1_high"]
    assert ceiling["auroc"] > 0.99 > neuron["auroc"]
    assert np.isnan(ceiling["unit"]) and ceiling["candidates"] == 1


def test_a_probe_of_one_concept_is_not_used_for_another():
    first, second = CONCEPT_NAMES.index("name"), PLANTED
    choose, score = separable(0), separable(1)
    for part in (choose, score):
        part.marks[first] = ~part.marks[second]
    fitted = fit_probes(choose.centred, torch.from_numpy(choose.marks.T), SETTINGS.ridge)
    table = concept_table(3, choose, score, [probe(fitted, lambda part: part.centred, "one")], SETTINGS)
    assert (table.loc[table["concept"].isin(["name", "operator"]), "f1"] > 0.95).all()


def test_probes_do_not_depend_on_how_units_are_mixed():
    part = separable(0)
    marks = torch.from_numpy(part.marks.T[:, [PLANTED]])
    mixing = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    plain = fit_probes(part.centred, marks, 1e-3)(part.centred)
    mixed = fit_probes(part.centred @ mixing + 3, marks, 1e-3)(part.centred @ mixing + 3)
    torch.testing.assert_close(plain, mixed, rtol=1e-2, atol=1e-2)
    # the bias is free, so at the optimum as many tokens are expected as there are
    assert float(plain.sigmoid().mean()) == pytest.approx(float(marks.float().mean()), abs=1e-4)


def test_a_probe_is_the_minimum_of_its_loss():
    """One unit of variance 1: the slope of mean log loss + ridge / 2 w^2 is zero there."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 1, generator=generator)
    marks = torch.rand(3000, 1, generator=generator) < (2 * x - 1).sigmoid()
    for ridge in (1e-3, 0.3):
        fitted = fit_probes(x, marks, ridge)
        z, deviation = x - x.mean(0), x.std(0, correction=0)
        whitened_weight = float(fitted.weights[0, 0] * deviation)
        slope = ((fitted(x).sigmoid() - marks.float()) * z / deviation).mean() + ridge * whitened_weight
        assert abs(float(slope)) < 1e-4
    assert abs(whitened_weight) < 1.5  # the larger ridge shrinks it


# ------------------------------------------------------------------------------------------------ not testable


def test_a_concept_without_tokens_is_not_testable_and_says_why():
    mark, x, _ = random_part(0)
    empty = made_up(np.zeros(1200, dtype=bool), x, planted_codes(mark, 0, None), masked=7)
    full = made_up(mark, x, planted_codes(mark, 0, 3))
    assert why_not_testable(full, full, PLANTED) == ""
    assert "0 unmasked tokens of `choose` belong to it (7 more are masked); 20" in why_not_testable(
        empty, full, PLANTED
    )
    assert "`score`" in why_not_testable(full, empty, PLANTED)
    searches = [latents(NAME, 40, "pair"), neurons(lambda part: part.x[:, 0], 12, "one")]
    table = concept_table(3, full, empty, searches, SETTINGS)
    assert len(table) == len(CONCEPT_NAMES) and (table["kind"] == "latent").all()
    assert (table["reason"] != "").all() and table[["f1", "auroc", "unit", "threshold"]].isna().all(axis=None)
    assert (table["picked_by"] == "").all()


def test_a_concept_of_few_problems_is_not_testable():
    mark, x, _ = random_part(0)
    few = made_up(mark, x, problem=np.arange(1200) % 5)
    assert "5 problems; 6 are needed" in why_not_testable(few, few, PLANTED)
    everywhere = made_up(np.ones(1200, dtype=bool), x)
    assert "do not belong" in why_not_testable(everywhere, everywhere, PLANTED)


def test_a_dictionary_that_never_fires_scores_zero():
    mark, x, _ = random_part(0)
    part = made_up(mark, x, np.zeros((1200, 6)))
    table = concept_table(3, part, part, [latents(NAME, 6, "pair")], SETTINGS)
    row = only(table, concept="operator", picked_by="f1")
    assert (row["f1"], row["f1_high"], row["auroc"]) == (0, 0, 0.5) and np.isnan(row["threshold"])


def test_searches_in_pieces_find_the_same(monkeypatch):
    parts = [separable(seed) for seed in (0, 1)]
    search = random_directions(lambda part: part.centred, parts[0], 50, "pair", [NAME], 0)
    whole = concept_table(3, *parts, [search], SETTINGS)
    monkeypatch.setattr("reasondiff.latents.concept_candidates.ENTRIES_AT_ONCE", 7 * 2000)
    assert len(search.pieces(2000)) == 8
    pd.testing.assert_frame_equal(concept_table(3, *parts, [search], SETTINGS), whole)


def test_columns_become_entries():
    """Of [[1, -1], [0, 2]]: all four, or with `positive` the two above 0; the others are silent."""
    values = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    every, above = of_columns(values), of_columns(values, positive=True)
    assert (every.candidates.tolist(), every.tokens.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert every.values.tolist() == [1, 0, -1, 2]
    assert (above.candidates.tolist(), above.tokens.tolist(), above.values.tolist()) == ([0, 1], [0, 1], [1, 2])


def test_a_path_says_point_and_seed():
    assert point_and_seed("r/crosscoders/a-b/traces/layer3/btk24/seed11/crosscoder.safetensors") == ("btk24", 11)
    assert point_and_seed("r/transcoders/m/traces/x8k8/seed0/layers.3.mlp/sae.safetensors") == ("x8k8", 0)
    assert point_and_seed("r/transcoders/m/traces/x8k8/seed0/layers.3.mlp") == ("x8k8", 0)
    with pytest.raises(ValueError, match="<point>/seed<seed>"):
        point_and_seed("r/crosscoder.safetensors")


# ------------------------------------------------------------------------------------------------ real small models


@pytest.fixture(scope="module")
def generated(small_tokenizer, text_settings):
    """(token table, strings) of generated traces, problems in the parts calibrate, choose and score."""

    shares = {"train": 0.2, "calibrate": 0.2, "choose": 0.3, "score": 0.3, "report": 0.0}
    split = Split.model_validate({"seed": 0, "shares": shares, "held_out_family": None})
    rows = pd.DataFrame(openr1_rows(60, 1, {1: 1.0, 2: 1.0, 3: 1.0}, 0.1, 0.0, seed=0))
    documents = explode(rows, "ours", PREFIX, split).astype(object)
    table = tokenize_documents(documents, small_tokenizer, text_settings(max_tokens=400, context=400))
    return table, [small_tokenizer.decode([number]) for number in range(len(small_tokenizer))]


def random_crosscoder(seed, latents_=24, width=16):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(latents_, 2 * width, generator=generator)
    zeros = torch.zeros(2 * width)
    return fold(rows, torch.full((latents_,), -1.0), rows, zeros, torch.tensor([1.0, 1.0]), 0.5, 2, {})


@pytest.fixture(scope="module")
def site(generated, small_models, stream_settings):
    table, strings = generated
    markers = [number for number, word in enumerate(strings) if word in ("<think>", "</think>")]

    def open_stream(*names, place="block"):
        infos = [small_models[name] for name in names]
        return ActivationStream(infos, [1, 2], table, markers, stream_settings(), 400, "cpu", "float32", place)

    return open_stream


def measured(site, strings, stream=None):
    stream = stream or site("qwen2", "other")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[1]
    crosscoders = {("btk", 0): random_crosscoder(0), ("btk", 1): random_crosscoder(1), ("l1", 0): random_crosscoder(2)}
    tags = {name: ["shared", "other", "dead"] * 8 for name in crosscoders}
    untrained = (random_crosscoder(3), site("other", "qwen2"))
    return measure_concepts(stream, 1, statistics, crosscoders, tags, untrained, strings, SETTINGS, "pair")


@pytest.fixture(scope="module")
def whole(site, generated):
    return measured(site, generated[1])


def test_a_site_has_a_row_for_every_candidate_kind_tag_and_figure(whole):
    assert list(whole.columns) == list(COLUMNS) and (whole["layer"] == 1).all()
    told = whole[(whole["concept"] == "operator")]
    kinds = told.groupby("kind").size().to_dict()
    # latents: 3 dictionaries, of each (all, shared, other) by two figures and two tags without latents; neurons of two
    # models; random directions beside each dictionary; probes on either model and on both
    assert kinds == {"latent": 24, "neuron": 4, "random direction": 6, "untrained dictionary": 2, "probe": 6}
    assert set(told["kind"]) == set(KINDS)
    assert set(told.loc[told["kind"] == "probe", "model"]) == {"qwen2", "other", "pair"}
    assert told.loc[told["kind"] == "neuron", "candidates"].eq(32).all()
    assert told.loc[told["kind"] == "random direction", "candidates"].eq(24).all()
    assert told.loc[told["kind"].isin(["neuron", "probe", "untrained dictionary"]), "seed"].isna().all()


def test_intervals_hold_their_figure_and_ranges(whole):
    known = whole[whole["picked_by"] != ""]
    for name in ("f1", "auroc"):
        assert known[[name, f"{name}_low", f"{name}_high", f"{name}_choose"]].stack().between(0, 1).all()
        assert (known[f"{name}_low"] <= known[f"{name}_high"]).all()
    assert known["unit"].isna().eq(known["kind"] == "probe").all()


def test_masked_markers_are_not_testable(whole):
    rows = whole[whole["concept"] == "think_marker"]
    assert len(rows) == 3 and rows["reason"].str.contains("0 unmasked tokens").all()
    assert rows["reason"].str.contains("more are masked").all()


def test_only_unmasked_tokens_of_score_are_counted(whole, site, generated):
    stream = site("qwen2", "other")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[1]
    documents = stream.table.documents_of("score")
    kept = sum(int(unmasked(block, 1, statistics, stream.settings)[0].sum()) for block in stream(documents))
    assert whole["n_tokens"].eq(kept).all()
    assert whole["n_problems"].eq(len(np.unique(stream.table.problem[documents]))).all()


@pytest.mark.parametrize("part, figure", [("choose", "f1_choose"), ("score", "f1")])
@pytest.mark.parametrize(
    "said, names, seed",
    [
        ({"kind": "latent", "point": "btk", "seed": 1}, ("qwen2", "other"), 1),
        ({"kind": "untrained dictionary"}, ("other", "qwen2"), 3),
    ],
)
def test_a_reported_latent_is_what_its_code_says(whole, site, generated, part, figure, said, names, seed):
    """F1 of a picked latent on either part, from the crosscoder's own dense activations of the models it reads."""
    stream, read, crosscoder = site("qwen2", "other"), site(*names), random_crosscoder(seed)
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[1]
    row = only(whole, concept="name", tag="all", picked_by="f1", **said)
    documents = stream.table.documents_of(part)
    marks = mark_concepts(stream.table, generated[1], documents)[CONCEPT_NAMES.index("name")]
    fires, mark = [], []
    for block, other in zip(stream(documents), read(documents), strict=True):
        kept, _ = unmasked(block, 1, statistics, stream.settings)
        values = crosscoder.encode(other.activations[1][kept]).dense()[:, int(row["unit"])]
        fires += (values.double() > row["threshold"]).tolist()
        mark += marks[block.token[kept].numpy()].tolist()
    fires, mark = np.array(fires), np.array(mark)
    assert row[figure] == pytest.approx(2 * (fires & mark).sum() / (fires.sum() + mark.sum()))
    assert part != "score" or row["n_positive"] == mark.sum()


def test_equal_inputs_give_equal_bytes(whole, site, generated, tmp_path):
    for name, table in (("one", whole), ("two", measured(site, generated[1]))):
        write_table(tmp_path / f"{name}.tsv", table, {})
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()


def test_a_table_of_tags_of_another_crosscoder_is_refused(site, generated):
    stream = site("qwen2", "other")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[1]
    with pytest.raises(ArtefactError, match="24 latents, but its table 3 rows"):
        measure_concepts(
            stream, 1, statistics, {NAME: random_crosscoder(0)}, {NAME: ["dead"] * 3}, None, generated[1], SETTINGS, "p"
        )


def random_transcoder(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(20, 16, generator=generator)
    return Transcoder(rows, torch.zeros(20), rows, torch.zeros(16), None, 4, {})


def test_transcoders_are_measured_layer_by_layer(site, generated):
    stream = site("qwen2", place="mlp")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)
    transcoders = {1: random_transcoder(0), 2: random_transcoder(1)}
    table = measure_transcoder_concepts(stream, statistics, transcoders, ("x", 0), generated[1], SETTINGS, "qwen2")
    told = table[(table["concept"] == "operator") & (table["picked_by"] == "f1")]
    assert told["layer"].tolist() == [1] * 4 + [2] * 4
    assert set(told["kind"]) == {"latent", "neuron", "random direction", "probe"}
    assert told.loc[told["kind"] == "neuron", "candidates"].eq(2 * 32).all()  # the MLP's 32 neurons, both signs
    one = measure_transcoder_concepts(
        stream.only([2]), statistics, {2: transcoders[2]}, ("x", 0), generated[1], SETTINGS, "qwen2"
    )
    pd.testing.assert_frame_equal(one, table[table["layer"] == 2].reset_index(drop=True))
    nothing = measure_transcoder_concepts(stream, statistics, {}, ("x", 0), generated[1], SETTINGS, "qwen2")
    assert nothing.empty and list(nothing.columns) == list(COLUMNS)


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_the_neurons_are_what_the_mlp_writes_its_output_from(name, site, generated):
    stream = site(name, place="mlp")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[2]
    with neurons_beside(stream, 2) as read:
        part = read_part("score", stream, 2, statistics, read, {}, 1, generated[1], 1000)
    assert part.beside.shape == (len(part), 32)
    torch.testing.assert_close(stream.models[0].model.layers[2].mlp.down_proj(part.beside), part.x[:, 1])


def test_an_mlp_of_another_kind_has_no_known_neurons(site):
    stream = site("qwen2", place="mlp")
    stream.models[0].model.layers[1].mlp = torch.nn.Linear(16, 16)
    with pytest.raises(ModelError, match="where its neurons are is not known"), recorded_neurons(stream.models[0], 1):
        pass


def test_random_models_are_read_on_the_same_tokens(site, generated):
    """What is read beside the models is of the same tokens: with the models themselves, it is the same."""
    stream = site("qwen2", "other")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[1]
    read = untrained_beside(stream, 1, site("qwen2", "other"))
    part = read_part("score", stream, 1, statistics, read, {}, 1, generated[1], 1000)
    assert len(part) > 500
    torch.testing.assert_close(part.beside, part.x)
    centred = (part.x - statistics.mean) * statistics.scale[:, None]
    torch.testing.assert_close(part.centred, centred.flatten(1))


def test_codes_made_in_pieces_are_those_made_at_once(site, generated, monkeypatch):
    stream, crosscoder = site("qwen2", "other"), random_crosscoder(0)
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)[1]
    coders = {NAME: lambda x, _beside: crosscoder.encode(x)}
    monkeypatch.setattr("reasondiff.latents.concept_reading.RESPONSES_AT_ONCE", 24 * 100)
    read = untrained_beside(stream, 1, None)
    part = read_part("score", stream, 1, statistics, read, coders, 24, generated[1], 1000)
    whole = crosscoder.encode(part.x)
    torch.testing.assert_close(part.codes[NAME].dense(), whole.dense(), rtol=1e-4, atol=1e-4)
    assert len(part) > 500
