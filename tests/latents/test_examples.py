"""Examples of real small models are exactly what plain loops over all activations give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from plain_lots import plain_lot

from reasondiff.config import PARTS, Examples
from reasondiff.dictionaries.crosscoder import fold
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.latents import collection
from reasondiff.latents.example_table import FIRING, KINDS, SILENT, read_examples, write_examples
from reasondiff.latents.examples import Coder, Collected, collect_examples, crosscoder_coder, joined, transcoder_coder
from reasondiff.latents.windows import Marks, whole_documents
from reasondiff.models.stream import ActivationStream, Block, calibrate, unmasked
from reasondiff.store import ArtefactError, read_card, read_table, write_table
from reasondiff.text.rendering import PHASE_CODE, PHASES
from reasondiff.text.tokens import tokenize_documents

LATENTS, CONTEXT, FOREIGN = 40, 60, 33
SETTINGS = Examples(
    tokens=900, strongest=4, sampled=12, quantiles=3, per_quantile=2, before=5, after=3, negatives=3, pool_windows=60,
    logits=1, seed=7,
)  # fmt: skip


@pytest.fixture(scope="session")
def table(make_documents, small_tokenizer, text_settings):
    """Documents of 22 to 80 tokens, correct, incorrect and of unknown outcome; a part of them is cut at `CONTEXT`."""
    rows = []
    for index in range(60):
        steps = "; ".join(f"{index} and {step} make {index + step}" for step in range(1 + index % 4))
        rows.append(
            {
                "prompt": f"Add {index} to {index % 7}. Think.",
                "think": steps,
                "answer": f"It is {index + index % 7}.",
                "part": ("calibrate", "choose", "score")[index % 3],
                "correct": (True, False, None)[index // 3 % 3],
            }
        )
    return tokenize_documents(make_documents(rows), small_tokenizer, text_settings())


def a_crosscoder(seed: int, **card):
    """Random, with latents that fire seldom, often, and (the last two) never."""
    draw = torch.Generator().manual_seed(seed)
    sides = len(card.get("sides", (0, 1)))
    encoder = torch.randn(LATENTS, 16 * sides, generator=draw)
    bias = torch.linspace(-6, 2, LATENTS)
    bias[-2:] = -1e6
    scale = torch.ones(sides)
    return fold(encoder, bias, encoder, torch.zeros(16 * sides), scale, 8.0, 4, card)


def a_transcoder(seed: int, k: int = 5) -> Transcoder:
    draw = torch.Generator().manual_seed(seed)
    encoder = torch.randn(LATENTS, 16, generator=draw)
    bias = torch.zeros(LATENTS)
    bias[-2:] = -1e6
    return Transcoder(encoder, bias, encoder.roll(1, 0) + encoder, torch.zeros(16), None, k, {})


def rounded(coder: Coder) -> Coder:
    """The same with values rounded up to whole numbers of 4, so that many tie."""

    def code(x):
        exact = coder.code(x)
        return exact.with_values(torch.ceil(exact.values / 4) * 4)

    return replace(coder, code=code)


@dataclass
class Case:
    """A stream, a dictionary, and what was collected of it."""

    stream: ActivationStream
    statistics: dict
    coder: Coder
    settings: Examples
    found: Collected
    examples: pd.DataFrame


@pytest.fixture(scope="session")
def collect(table, small_models, stream_settings, tmp_path_factory):
    """`collect("block", coders, batch_rows=2)`: {name: Case}."""

    def run(place, coders, settings=SETTINGS, table=table, statistics=None, **changes):
        models = [small_models["qwen2"], small_models["other"]][: 1 if place == "mlp" else 2]
        layers = sorted({coder.layer for coder in coders.values()})
        reading = stream_settings(**{"norm_factor": 1.7, **changes})  # such that some tokens are sinks
        stream = ActivationStream(models, layers, table, [FOREIGN], reading, CONTEXT, "cpu", "float32", place)
        statistics = statistics or calibrate(stream, stream.table.documents_of("calibrate"), 500)
        words = [f"<{number}>" for number in range(420)]
        cases = {}
        for name, collected in collect_examples(stream, statistics, coders, settings, words, "ours"):
            path = tmp_path_factory.mktemp("examples") / "examples.parquet"
            write_examples(path, collected.examples, {})
            cases[name] = Case(stream, statistics, coders[name], settings, collected, read_examples(path))
        return cases

    return run


CODERS = {
    "block": {
        "ours": rounded(crosscoder_coder(a_crosscoder(0), 1)),
        "exact": crosscoder_coder(a_crosscoder(1), 1),
        "one side": crosscoder_coder(a_crosscoder(2, sides=[1]), 1),
    },
    "mlp": {0: rounded(transcoder_coder(a_transcoder(0), 0)), 2: transcoder_coder(a_transcoder(2), 2)},
}


@pytest.fixture(scope="session")
def cases(collect):
    return [case for place, coders in CODERS.items() for case in collect(place, coders).values()]


@pytest.fixture(scope="session", params=range(5), ids=["crosscoder, ties", "crosscoder", "one side", "ties", "last"])
def case(request, cases):
    return cases[request.param]


@pytest.fixture(scope="session")
def dense(case):
    """(activations [token, latent], unmasked [token]) of the two parts: 0 where nothing was read."""
    table = case.stream.table
    activations, kept = np.zeros((len(table.ids), LATENTS), np.float32), np.zeros(len(table.ids), bool)
    for part in ("choose", "score"):
        for block in case.stream(documents_read(case, part)):
            here, _ = unmasked(block, case.coder.layer, case.statistics[case.coder.layer], case.stream.settings)
            tokens = block.token[here].numpy()
            x = block.activations[case.coder.layer][here]
            activations[tokens] = case.coder.code(x).dense().numpy()
            kept[tokens] = True
    return activations, kept


def documents_read(case: Case, part: str) -> np.ndarray:
    """The first documents that together hold at most `tokens` tokens."""
    table, read, tokens = case.stream.table, [], 0
    for document in range(len(table)):
        tokens_here = min(int(table.lengths()[document]), CONTEXT)
        if PARTS[table.part[document]] == part and tokens + tokens_here <= case.settings.tokens:
            read.append(document)
            tokens += tokens_here
        elif PARTS[table.part[document]] == part:
            break
    return np.array(read)


def firings(case: Case, dense, part: str, latent: int) -> list[tuple[float, int, int]]:
    """(value, token, document) of all firings of a latent in a part."""
    table, (activations, _) = case.stream.table, dense
    return [
        (float(activations[token, latent]), token, int(document))
        for document in documents_read(case, part)
        for token in range(table.starts[document], table.starts[document + 1])
        if activations[token, latent] > 0
    ]


def plain_strongest(fired: list, n: int) -> list[tuple[float, int, int]]:
    best = {}
    for value, token, document in fired:
        if document not in best or value > best[document][0]:
            best[document] = (value, token, document)
    return sorted(best.values(), key=lambda firing: (-firing[0], firing[1]))[:n]


def plain_quantiles(fired: list, strongest: list, settings: Examples, layer: int, latent: int) -> list[tuple]:
    """(quantile, token), drawn as the module says: fresh documents first, those already shown last."""
    lot = lambda firing: plain_lot(settings.seed, layer, latent, firing[1])  # noqa: E731
    sample = sorted(sorted(fired, key=lot)[: settings.sampled], key=lambda firing: (firing[0], -firing[1]))
    used, shown, picks = {firing[2] for firing in strongest}, {firing[1] for firing in strongest}, []
    for quantile in range(settings.quantiles):
        group = [f for place, f in enumerate(sample) if place * settings.quantiles // len(sample) == quantile]
        for _ in range(min(settings.per_quantile, len(group))):
            cost = lambda firing: 2 if firing[1] in shown else int(firing[2] in used)  # noqa: E731
            pick = min(group, key=lambda firing: (cost(firing), lot(firing)))
            group.remove(pick)
            used.add(pick[2])
            picks.append((quantile, pick[1]))
    return sorted(picks)


def chosen(case: Case, **only) -> pd.DataFrame:
    """The examples whose columns have these values (or one of these)."""
    rows = case.examples
    for name, value in only.items():
        rows = rows[rows[name].isin(value if isinstance(value, tuple) else (value,))]
    return rows.reset_index(drop=True)


def tokens_of(case: Case, rows: pd.DataFrame) -> np.ndarray:
    """Where in the token table the rows' positions are."""
    return case.stream.table.starts[rows["document"]] + rows["position"].to_numpy()


# ------------------------------------------------------------------------------------------- firing examples


@pytest.mark.parametrize("part", ["choose", "score"])
def test_the_strongest_are_those_of_a_loop_over_everything(case, dense, part):
    seen = 0
    for latent in range(LATENTS):
        wanted = plain_strongest(firings(case, dense, part, latent), case.settings.strongest)
        rows = chosen(case, latent=latent, part=part, kind="strongest")
        assert rows["place"].tolist() == list(range(len(wanted)))
        assert tokens_of(case, rows).tolist() == [token for _, token, _ in wanted]
        assert rows["value"].tolist() == [value for value, _, _ in wanted]
        assert rows["document"].tolist() == [document for *_, document in wanted]
        seen += len(wanted)
    assert seen > LATENTS


@pytest.mark.parametrize("part", ["choose", "score"])
def test_quantiles_are_cut_and_drawn_as_a_loop_does_it(case, dense, part):
    seen = 0
    for latent in range(LATENTS):
        fired = firings(case, dense, part, latent)
        strongest = plain_strongest(fired, case.settings.strongest)
        rows = chosen(case, latent=latent, part=part, kind="quantile")
        wanted = plain_quantiles(fired, strongest, case.settings, case.coder.layer, latent) if fired else []
        assert list(zip(rows["place"], tokens_of(case, rows), strict=True)) == wanted
        seen += len(wanted)
    assert seen > LATENTS


def test_there_are_ties_to_decide(cases):
    """Otherwise the tests above would not say who wins them."""
    for case in (cases[0], cases[3]):
        strongest = chosen(case, kind="strongest")
        groups = strongest.groupby(["latent", "part"])["value"]
        assert (groups.nunique() < groups.size()).sum() > 5


def test_some_latents_fire_in_one_part_alone(cases):
    """Otherwise the tests above would not say what becomes of them."""
    found = [set(chosen(case, part=part, kind=FIRING)["latent"]) for case in cases for part in ("choose", "score")]
    assert found[::2] != found[1::2]


def test_windows_are_the_tokens_around_a_firing_inside_its_document(case, dense):
    table, (activations, _) = case.stream.table, dense
    firing = case.examples[case.examples["kind"].isin(FIRING)]
    for row, token in zip(firing.itertuples(), tokens_of(case, firing), strict=True):
        start = max(0, row.position - 5)
        end = min(row.position + 4, int(table.lengths()[row.document]), CONTEXT)
        first = table.starts[row.document]
        assert row.start == start and len(row.tokens) == end - start == len(row.activations)
        assert row.tokens == [f"<{number}>" for number in table.ids[first + start : first + end]]
        np.testing.assert_allclose(row.activations, activations[first + start : first + end, row.latent], atol=1e-4)
        assert row.activations[row.position - start] == row.value
        assert row.phase == PHASES[table.phases[token]] and row.problem == table.problem[row.document]
    assert {len(tokens) for tokens in firing["tokens"]} > {9} and (firing["start"] > 0).any()


def test_correct_is_that_of_the_trace(case):
    table = case.stream.table
    wanted = [{1: True, 0: False, -1: None}[int(table.correct[document])] for document in case.examples["document"]]
    came = [None if pd.isna(flag) else bool(flag) for flag in case.examples["correct"]]
    assert came == wanted and set(wanted) == {True, False, None}


def test_masked_tokens_are_never_chosen_and_their_activation_is_zero(case, dense):
    table, (_, kept) = case.stream.table, dense
    assert kept[tokens_of(case, case.examples)].all()
    masked_inside = 0
    for row in case.examples.itertuples():
        first = table.starts[row.document] + row.start
        masked = ~kept[first : first + len(row.tokens)]
        assert not np.array(row.activations)[masked].any()
        masked_inside += masked.sum()
    assert masked_inside > 0
    sinks = ~kept & np.isin(np.repeat(np.arange(len(table)), table.lengths()), case.examples["document"])
    positions = np.arange(len(table.ids)) - np.repeat(table.starts[:-1], table.lengths())
    inside = (positions >= 2) & (positions < CONTEXT) & (table.ids != FOREIGN)
    assert (sinks & inside).any()  # tokens masked for their norm, which only the models tell


def test_the_rows_are_ordered_and_of_live_latents_alone(case, dense):
    live = np.flatnonzero((dense[0] > 0).any(axis=0))
    assert sorted(case.examples["latent"].unique()) == live.tolist() and len(live) < LATENTS
    assert set(case.examples["layer"]) == {case.coder.layer} and set(case.examples["model"]) == {"ours"}
    keys = [
        (row.latent, ("choose", "score").index(row.part), KINDS.index(row.kind), row.place)
        for row in case.examples.itertuples()
    ]
    assert keys == sorted(keys)


# ------------------------------------------------------------------------------------------- silent examples


def silent(case: Case, dense, token: int, latent: int) -> bool:
    """Whether the centre is unmasked and the latent fires nowhere in the window around it."""
    table, (activations, kept) = case.stream.table, dense
    document = int(np.searchsorted(table.starts, token, side="right")) - 1
    first = max(token - 5, int(table.starts[document]))
    end = min(token + 4, int(table.starts[document + 1]), int(table.starts[document]) + CONTEXT)
    return bool(kept[token]) and not (activations[first:end, latent] > 0).any()


def score_tokens(case: Case) -> list[int]:
    """Tokens of the part `score` that may be unmasked."""
    table = case.stream.table
    return [
        token
        for document in documents_read(case, "score")
        for token in range(
            table.starts[document] + 2, min(table.starts[document + 1], table.starts[document] + CONTEXT)
        )
        if table.ids[token] != FOREIGN
    ]


def test_a_latent_is_active_nowhere_in_its_silent_windows(case, dense):
    rows = case.examples[case.examples["kind"].isin(SILENT)]
    assert set(rows["kind"]) == set(SILENT) and set(rows["part"]) == {"score"}
    assert (rows["value"] == 0).all() and not any(any(activations) for activations in rows["activations"])
    for token, latent in zip(tokens_of(case, rows), rows["latent"], strict=True):
        assert silent(case, dense, int(token), latent)
    assert rows.groupby(["latent", "kind"])["place"].apply(lambda p: p.tolist() == list(range(len(p)))).all()


def test_random_windows_are_the_smallest_lots_of_the_pool(case, dense):
    layer, seed = case.coder.layer, case.settings.seed
    pool = np.random.default_rng(seed).choice(score_tokens(case), size=60, replace=False).tolist()
    counts = set()
    for latent in case.examples["latent"].unique():
        quiet = [token for token in pool if silent(case, dense, token, latent)]
        wanted = sorted(quiet, key=lambda token: plain_lot(seed, layer, latent, token))[: case.settings.negatives]  # noqa: B023
        rows = chosen(case, latent=latent, kind="random")
        assert tokens_of(case, rows).tolist() == wanted
        counts.add(len(wanted))
    assert 3 in counts


def test_windows_of_the_same_token_have_the_latents_token_and_phase(case, dense):
    table, (activations, _) = case.stream.table, dense
    possible = score_tokens(case)
    counts, tried_all = set(), 0
    for latent in case.examples["latent"].unique():
        shown = chosen(case, latent=latent, part="choose")
        rows = chosen(case, latent=latent, kind="same_token")
        if not len(shown):
            assert not len(rows)
            continue
        ids = pd.Series(table.ids[tokens_of(case, shown)]).value_counts()
        token_id = ids[ids == ids.max()].index.min()
        phases = [(table.phases[(activations[:, latent] > 0)] == code).sum() for code in range(len(PHASES))]
        there = [
            token for token in possible if table.ids[token] == token_id and table.phases[token] == np.argmax(phases)
        ]
        quiet = [token for token in there if silent(case, dense, token, latent)]
        found = tokens_of(case, rows).tolist()
        assert set(found) <= set(quiet) and len(set(found)) == len(found) <= 3
        if len(there) <= 16 * case.settings.negatives:  # all of them were tried
            assert len(found) == min(3, len(quiet))
            tried_all += 1
        lengths = shown["tokens"].str.len().value_counts()
        usual = lengths[lengths == lengths.max()].index.min()
        fits = [length == usual for length in rows["tokens"].str.len()]
        assert fits == sorted(fits, reverse=True)  # windows of the usual length go first
        counts.add(len(found))
    assert {0, 3} <= counts and tried_all > 5


def test_neighbour_windows_are_those_in_which_the_nearest_neighbour_fires(case, dense):
    layer, seed, counts = case.coder.layer, case.settings.seed, set()
    for latent in case.examples["latent"].unique():
        neighbour = case.found.firing["neighbour"][latent]
        theirs = chosen(case, latent=neighbour, part="score", kind=FIRING)
        quiet = {token for token in tokens_of(case, theirs).tolist() if silent(case, dense, token, latent)}
        wanted = sorted(quiet, key=lambda token: plain_lot(seed, layer, latent, token))[:3]  # noqa: B023
        rows = chosen(case, latent=latent, kind="neighbour")
        assert tokens_of(case, rows).tolist() == wanted
        counts.add(len(wanted))
    assert 3 in counts


def test_the_neighbour_is_the_live_latent_of_largest_decoder_cosine(case, dense):
    live = (dense[0] > 0).any(axis=0)
    rows = torch.nn.functional.normalize(case.coder.directions, dim=1).numpy()
    firing = case.found.firing
    for latent in range(LATENTS):
        if not live[latent]:
            assert firing["neighbour"][latent] == -1 and np.isnan(firing["neighbour_cosine"][latent])
            continue
        cosines = {other: rows[latent] @ rows[other] for other in np.flatnonzero(live) if other != latent}
        best = max(cosines, key=cosines.get)
        assert firing["neighbour"][latent] == best
        assert firing["neighbour_cosine"][latent] == pytest.approx(cosines[best], abs=1e-5)


# ------------------------------------------------------------------------------------------- how latents fire


def test_firing_rates_are_those_of_counting(case, dense):
    table, (activations, kept) = case.stream.table, dense
    fires, firing = activations > 0, case.found.firing
    assert firing["latent"].tolist() == list(range(LATENTS)) and set(firing["layer"]) == {case.coder.layer}
    assert firing["firings"].tolist() == fires.sum(axis=0).tolist()
    np.testing.assert_allclose(firing["rate"], fires.sum(axis=0) / kept.sum())
    for phase, code in PHASE_CODE.items():
        inside = kept & (table.phases == code)
        rate = fires[inside].mean(axis=0) if inside.any() else np.full(LATENTS, np.nan)
        np.testing.assert_allclose(firing[f"rate_{phase}"], rate)
        assert case.found.facts[f"tokens_{phase}"] == inside.sum()
    assert firing["rate_text"].isna().all()
    np.testing.assert_allclose(firing["max_activation"], activations.max(axis=0), atol=1e-4)
    mean = activations.sum(axis=0) / np.maximum(fires.sum(axis=0), 1)
    np.testing.assert_allclose(firing["mean_activation"], mean, rtol=1e-5)


def test_correct_and_incorrect_traces_are_counted_on_their_responses(case, dense):
    table, (activations, kept) = case.stream.table, dense
    document = np.repeat(np.arange(len(table)), table.lengths())
    response = kept & np.isin(table.phases, [PHASE_CODE["think"], PHASE_CODE["answer"]])
    for number, outcome in ((1, "correct"), (0, "incorrect")):
        inside = response & (table.correct[document] == number)
        traces = sorted(set(document[inside]))
        assert case.found.facts[f"tokens_{outcome}"] == inside.sum() > 0
        assert case.found.facts[f"traces_{outcome}"] == len(traces) > 1
        np.testing.assert_allclose(case.found.firing[f"rate_{outcome}"], (activations[inside] > 0).mean(axis=0))
        by_trace = [(activations[inside & (document == trace)] > 0).any(axis=0) for trace in traces]
        np.testing.assert_allclose(case.found.firing[f"traces_{outcome}"], np.mean(by_trace, axis=0))


# ------------------------------------------------------------------------------------------- batches, odd cases


def same(one: Case, other: Case) -> None:
    """The same rows; activations up to the rounding of matrix products of other sizes."""
    exact = [name for name in one.examples.columns if name not in ("activations", "value")]
    pd.testing.assert_frame_equal(one.examples[exact], other.examples[exact])
    np.testing.assert_allclose(one.examples["value"], other.examples["value"], rtol=1e-4)
    for ours, theirs in zip(one.examples["activations"], other.examples["activations"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(one.found.firing, other.found.firing, rtol=1e-4)


@pytest.mark.parametrize("place", ["block", "mlp"])
def test_examples_do_not_depend_on_the_batch(collect, cases, place, monkeypatch):
    before = cases[:3] if place == "block" else cases[3:]
    for batch_rows, at_once in ((1, 2**26), (64, 2**26), (64, 1)):
        monkeypatch.setattr("reasondiff.latents.examples.RESPONSES_AT_ONCE", at_once)
        # which tokens calibrate does depend on the batch
        statistics = {layer: found for case in before for layer, found in case.statistics.items()}
        after = collect(place, CODERS[place], statistics=statistics, batch_rows=batch_rows)
        for one, other in zip(before, after.values(), strict=True):
            same(one, other)


def test_a_dictionary_has_the_same_examples_whoever_shares_its_passes(collect, cases):
    alone = collect("mlp", {2: CODERS["mlp"][2]})[2]
    same(cases[4], alone)


def test_equal_runs_give_equal_tables(collect, cases):
    again = collect("block", CODERS["block"])["ours"]
    pd.testing.assert_frame_equal(again.examples, cases[0].examples)
    pd.testing.assert_frame_equal(again.found.firing, cases[0].found.firing)


def test_another_seed_draws_others_and_leaves_the_strongest(collect, cases):
    other = collect("block", {"ours": CODERS["block"]["ours"]}, SETTINGS.model_copy(update={"seed": 8}))["ours"]
    strongest = [chosen(case, kind="strongest") for case in (cases[0], other)]
    pd.testing.assert_frame_equal(*strongest)
    for kind in ("quantile", "random"):
        rows = [chosen(case, kind=kind)[["latent", "document", "position"]] for case in (cases[0], other)]
        assert not rows[0].equals(rows[1])


def test_no_negatives_where_none_are_asked_for(collect):
    case = collect("block", {"ours": CODERS["block"]["ours"]}, SETTINGS.model_copy(update={"negatives": 0}))["ours"]
    assert set(case.examples["kind"]) == set(FIRING)


def test_where_no_latent_fires_the_tables_are_valid_and_empty(collect, tmp_path):
    never = replace(a_crosscoder(0), encoder_bias=torch.full((LATENTS,), -1e6))
    case = collect("block", {"never": crosscoder_coder(never, 1)})["never"]
    assert len(case.examples) == 0 and (case.found.firing["firings"] == 0).all()
    assert (case.found.firing["neighbour"] == -1).all() and (case.found.firing["max_activation"] == 0).all()
    write_table(tmp_path / "firing.parquet", case.found.firing, case.found.facts)
    assert len(read_table(tmp_path / "firing.parquet")) == LATENTS


def test_a_latent_that_fires_in_one_part_alone_has_firing_examples_of_that_part_alone(case, dense):
    fires = {
        part: [bool(firings(case, dense, part, latent)) for latent in range(LATENTS)] for part in ("choose", "score")
    }
    for part in fires:
        rows = chosen(case, part=part, kind=FIRING)
        assert sorted(rows["latent"].unique()) == np.flatnonzero(fires[part]).tolist()


@pytest.mark.parametrize("part", ["choose", "score"])
def test_a_part_without_documents_is_named(collect, table, part):
    calibrate_only = replace(table, part=np.where(table.part == PARTS.index(part), PARTS.index("report"), table.part))
    with pytest.raises(ArtefactError, match=f"no document in its `{part}` part"):
        collect("block", {"ours": CODERS["block"]["ours"]}, table=calibrate_only)


def test_a_tokenizer_with_too_few_ids_is_refused(table, small_models, stream_settings):
    models = [small_models["qwen2"], small_models["other"]]
    stream = ActivationStream(models, [1], table, [], stream_settings(), CONTEXT, "cpu", "float32")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), 500)
    with pytest.raises(ArtefactError, match="the tokenizer has 3 ids"):
        for _, found in collect_examples(
            stream, statistics, {"ours": CODERS["block"]["ours"]}, SETTINGS, ["a", "b", "c"], "ours"
        ):
            list(found.examples)


# ------------------------------------------------------------------------------------------- several layers


def test_layers_are_joined_in_order_and_the_facts_are_of_the_layer_with_fewest_tokens(cases):
    parts = {2: cases[4].found, 0: cases[3].found}
    firing, facts = joined(*({layer: getattr(part, of) for layer, part in parts.items()} for of in ("firing", "facts")))
    assert list(dict.fromkeys(firing["layer"])) == [0, 2] and len(firing) == 2 * LATENTS
    assert facts["tokens"] == min(part.facts["tokens"] for part in parts.values())
    if parts[0].facts["tokens"] != parts[2].facts["tokens"]:
        assert facts["layers"]["tokens"] == {"0": parts[0].facts["tokens"], "2": parts[2].facts["tokens"]}


def test_in_pieces_the_table_is_the_same(collect, cases, monkeypatch):
    monkeypatch.setattr(collection, "ROWS_AT_ONCE", 7)
    found = collect("block", {"ours": CODERS["block"]["ours"]})["ours"]
    pd.testing.assert_frame_equal(found.examples, cases[0].examples)


def test_marks_are_kept_bit_for_bit():
    """Of 11 latents, which fill a byte and a part of one; a window that was never set counts as active everywhere."""
    draw = np.random.default_rng(0).random((6, 11)) < 0.5
    marks, some = Marks(6, 11, "cpu"), [4, 0, 2]
    marks.set(torch.tensor(some), torch.from_numpy(draw[some]))
    expected = np.ones_like(draw)
    expected[some] = draw[some]
    assert marks.of(torch.arange(11)).tolist() == expected.tolist()
    assert marks.of(torch.tensor([9, 3])).tolist() == expected[:, [9, 3]].tolist()


def test_the_histogram_and_its_edges_survive_the_disk(cases, tmp_path):
    found = cases[1].found
    write_table(tmp_path / "firing.parquet", found.firing, found.facts)
    back = read_table(tmp_path / "firing.parquet")
    edges = read_card(tmp_path / "firing.parquet")["histogram_edges"]
    assert all(len(histogram) == len(edges) + 1 for histogram in back["histogram"])
    assert [sum(histogram) for histogram in back["histogram"]] == back["firings"].tolist()


def test_blocks_are_read_in_their_documents(cases):
    """The oracle above rests on this: a block holds documents whole, cut at the context."""
    for block in cases[0].stream(documents_read(cases[0], "score")):
        assert isinstance(block, Block)
        for document in block.document.unique().tolist():
            length = min(int(cases[0].stream.table.lengths()[document]), CONTEXT)
            assert (block.document == document).sum() == length


@pytest.mark.parametrize("tokens", [1, 50, 100, 10**6])
def test_a_block_is_cut_between_documents_only(cases, tokens):
    stream = cases[0].stream
    for block in stream(documents_read(cases[0], "choose")):
        pieces = whole_documents(block, tokens)
        assert torch.equal(torch.cat([piece.token for piece in pieces]), block.token)
        assert torch.equal(torch.cat([piece.activations[1] for piece in pieces]), block.activations[1])
        documents = [set(piece.document.tolist()) for piece in pieces]
        assert sum(map(len, documents)) == len(block.document.unique())  # none is in two pieces
        for piece, own in zip(pieces, documents, strict=True):
            assert len(piece.token) <= tokens or len(own) == 1
        for one, other in zip(pieces, pieces[1:], strict=False):
            first_document = int((other.document == other.document[0]).sum())
            assert len(one.token) + first_document > tokens  # no piece could have held more
        if tokens == 1:
            assert len(pieces) == len(block.document.unique())
