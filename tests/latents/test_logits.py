"""Logit effects of decoder directions: the tokens, the numbers and their order are what counting by hand gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from reasondiff.dictionaries.crosscoder import fold
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.latents import logits
from reasondiff.latents.logits import (
    SCHEMA,
    effects_table,
    extremes,
    measure_logit_effects,
    measure_transcoder_logit_effects,
    write_logit_effects,
)
from reasondiff.models.load import ModelError, load_model
from reasondiff.models.unembedding import Unembedding, read_unembedding
from reasondiff.store import ArtefactError, read_card, read_table

WIDTH, LATENTS, IDS = 16, 6, 420
TOKENS = [f"t{number}" for number in range(IDS)]


def plain(table) -> list[dict]:
    return table.to_pylist()


def by_hand(directions, norm, weight, tokens, number):
    """For each direction (raised, raised_by, lowered, lowered_by), one token at a time, in Python's own sort."""
    found = []
    for direction in directions.tolist():
        scores = []
        for index, row in enumerate(weight.tolist()):
            if index < len(tokens) and tokens[index]:
                scores.append((sum(d * w * u for d, w, u in zip(direction, norm.tolist(), row, strict=True)), index))
        up = sorted(scores, key=lambda pair: (-pair[0], pair[1]))[:number]
        down = sorted(scores)[:number]
        found.append([part for ends in (up, down) for part in ([tokens[i] for _, i in ends], [s for s, _ in ends])])
    return found


def firing_of(layer, firings):
    return pd.DataFrame({"layer": layer, "latent": range(len(firings)), "firings": firings})


@pytest.fixture(scope="module")
def crosscoder():
    """A crosscoder of two models of 16 units whose activations are scaled by 2 and by 0.5 before it."""
    make = torch.Generator().manual_seed(3)
    rows = torch.randn(LATENTS, 2 * WIDTH, generator=make)
    return fold(rows, torch.zeros(LATENTS), rows, torch.zeros(2 * WIDTH), torch.tensor([2.0, 0.5]), 0.5, 3, {})


@pytest.fixture(scope="module")
def pair(small_models):
    return [small_models["qwen2"], small_models["other"]]


# ------------------------------------------------------------------------------------------------ by hand


def test_effects_by_hand():
    # norm doubles the second unit. Direction (1, 1) -> (1, 2): ids (1,0) (0,1) (-1,1) (0,-1) get 1, 2, 1, -2
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [0.0, -1.0]])
    unembedding = Unembedding("ours", torch.tensor([1.0, 2.0]), weight)
    (row,) = plain(effects_table(torch.ones(1, 2), 5, np.array([0]), unembedding, list("abcd"), 3))
    assert row == {
        "layer": 5, "latent": 0, "model": "ours",
        "raised": ["b", "a", "c"], "raised_by": [2.0, 1.0, 1.0],
        "lowered": ["d", "a", "c"], "lowered_by": [-2.0, 1.0, 1.0],
    }  # fmt: skip


@pytest.mark.parametrize("at_once", [2**24, 2 * IDS, 1])
def test_effects_are_those_of_a_loop_over_tokens(small_models, monkeypatch, at_once):
    monkeypatch.setattr(logits, "EFFECTS_AT_ONCE", at_once)
    make = torch.Generator().manual_seed(0)
    read = read_unembedding(small_models["llama"], "cpu")
    read = replace(read, norm=torch.randn(WIDTH, generator=make))
    directions, live = torch.randn(9, WIDTH, generator=make), np.array([0, 2, 3, 7, 8])
    rows = plain(effects_table(directions, 1, live, read, TOKENS, 10))
    expected = by_hand(directions[live], read.norm, read.weight, TOKENS, 10)
    assert [row["latent"] for row in rows] == live.tolist()
    for row, (raised, raised_by, lowered, lowered_by) in zip(rows, expected, strict=True):
        assert row["raised"] == raised and row["lowered"] == lowered
        assert row["raised_by"] == pytest.approx(raised_by, abs=1e-5)
        assert row["lowered_by"] == pytest.approx(lowered_by, abs=1e-5)


def test_one_unit_of_a_latent_moves_the_models_own_logits_by_what_the_table_says(pair, crosscoder):
    """Added to the last block's output by a hook, at right angles to it so that the rms stays: the whole model."""
    tables = measure_logit_effects(pair, {"d": crosscoder}, {"d": firing_of(1, [1] * LATENTS)}, TOKENS, IDS, "cpu")
    rows = plain(tables["d"])
    for side, info in enumerate(pair):
        model = load_model(info, "cpu", "float32").double()
        for latent in range(LATENTS):
            row = next(row for row in rows if (row["latent"], row["model"]) == (latent, info.name))
            direction = crosscoder.decoder.view(LATENTS, 2, WIDTH)[latent, side].double()
            effect = dict(zip(row["raised"], row["raised_by"], strict=True))
            logit, rms = _logits_and_rms(model, direction)
            moved = (logit(0.01) - logit(-0.01)) / 0.02 * rms
            torch.testing.assert_close(
                moved, torch.tensor([effect[name] for name in TOKENS]).double(), atol=1e-4, rtol=1e-4
            )


def _logits_and_rms(model, direction):
    """A function from how much of `direction` is added to the last token's stream to its logits, and its rms."""
    ids, stream = torch.tensor([[3, 5, 7, 11]]), {}

    def logit(amount):
        def add(_module, _arguments, output):
            x = output[0] if isinstance(output, tuple) else output
            across = x - (x @ direction / direction.square().sum())[..., None] * direction
            stream["rms"] = (across[0, -1].square().mean() + model.config.rms_norm_eps).sqrt()
            return across + amount * direction

        handle = model.model.layers[-1].register_forward_hook(add)
        with torch.no_grad():
            found = model(ids).logits[0, -1]
        handle.remove()
        return found

    logit(0.0)
    return logit, stream["rms"]


# ------------------------------------------------------------------------------------------------ order and ties


def test_ties_go_to_the_smaller_id_whatever_the_sign():
    effects = torch.tensor(
        [[1.0, 3.0, -2.0, 3.0, 1.0, 1.0], [0.0, -0.0, 0.0, -0.0, 0.0, -0.0], [-1, -1, -5, -1, -1, -9]]
    )
    found = extremes(effects, torch.ones(6, dtype=torch.bool), 4)
    assert found.ids.tolist() == [[1, 3, 0, 4], [0, 1, 2, 3], [0, 1, 3, 4]]
    assert found.effects.tolist() == [[3, 3, 1, 1], [0, 0, 0, 0], [-1, -1, -1, -1]]


def test_a_latent_that_one_model_does_not_have_lowers_nothing_and_names_the_first_ids():
    unembedding = Unembedding("m", torch.ones(2), torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    (row,) = plain(effects_table(torch.zeros(1, 2), 0, np.array([0]), unembedding, TOKENS[:50], 3))
    assert row["raised"] == row["lowered"] == ["t0", "t1", "t2"]
    # not even a negative zero, which would be other bytes
    assert [str(value) for value in row["raised_by"] + row["lowered_by"]] == ["0.0"] * 6


def test_extremes_are_a_stable_sort_on_random_numbers_with_many_ties():
    make = torch.Generator().manual_seed(1)
    effects = (torch.randn(40, 300, generator=make) * 3).round() * 10.0 ** torch.randint(
        -30, 30, (40, 1), generator=make
    )
    named = torch.rand(300, generator=make) > 0.3
    found = extremes(effects, named, 25)
    for row, ids in zip(effects.tolist(), found.ids.tolist(), strict=True):
        allowed = [index for index in range(300) if named[index]]
        assert ids == sorted(allowed, key=lambda index: -row[index])[:25]  # Python's sort is stable


# ------------------------------------------------------------------------------------------------ which tokens


@pytest.mark.parametrize("padding", ["no string", "no id"])
def test_padded_ids_are_never_named(padding):
    # id 0 and id 3 would be the strongest; 0 has an empty string, 3 no string at all
    weight = torch.tensor([[9.0], [1.0], [-1.0], [8.0]])
    tokens = ["", "b", "c", ""] if padding == "no string" else ["", "b", "c"]
    unembedding = Unembedding("m", torch.ones(1), weight)
    (row,) = plain(effects_table(torch.ones(1, 1), 0, np.array([0]), unembedding, tokens, 4))
    assert row["raised"] == ["b", "c"] and row["lowered"] == ["c", "b"]


def test_tokens_that_the_model_does_not_embed_are_never_named():
    unembedding = Unembedding("m", torch.ones(1), torch.tensor([[1.0], [2.0]]))
    (row,) = plain(effects_table(torch.ones(1, 1), 0, np.array([0]), unembedding, list("abcd"), 4))
    assert row["raised"] == ["b", "a"]


# ------------------------------------------------------------------------------------------------ dictionaries


def test_a_crosscoder_has_a_row_for_each_live_latent_and_model_in_order(pair, crosscoder):
    firing = {"d": firing_of(2, [4, 0, 1, 0, 0, 9])}
    table = measure_logit_effects(pair, {"d": crosscoder}, firing, TOKENS, 3, "cpu")["d"]
    assert table.schema.equals(SCHEMA)
    rows = plain(table)
    expected = [(2, latent, info.name) for latent in (0, 2, 5) for info in pair]
    assert [(row["layer"], row["latent"], row["model"]) for row in rows] == expected
    # raw units: the rows of the file, not the normalised ones, which differ by the scales 2 and 0.5
    read = read_unembedding(pair[1], "cpu")
    direction = crosscoder.decoder.view(LATENTS, 2, WIDTH)[5, 1]
    assert rows[-1]["raised_by"] == pytest.approx(read.effects(direction[None])[0].topk(3).values.tolist(), rel=1e-5)


def test_a_dictionary_of_one_side_reads_that_sides_model(pair, crosscoder):
    alone = replace(
        crosscoder,
        encoder=crosscoder.encoder[:, WIDTH:], decoder=crosscoder.decoder[:, WIDTH:], scale=crosscoder.scale[1:],
        norm=crosscoder.norm[1:], decoder_bias=crosscoder.decoder_bias[WIDTH:], card={"sides": [1]},
    )  # fmt: skip
    firing = {name: firing_of(2, [1] * LATENTS) for name in ("both", "alone")}
    tables = measure_logit_effects(pair, {"both": crosscoder, "alone": alone}, firing, TOKENS, 3, "cpu")
    assert plain(tables["alone"]) == [row for row in plain(tables["both"]) if row["model"] == pair[1].name]


def transcoder(seed, latents=5):
    make = torch.Generator().manual_seed(seed)
    rows = torch.randn(latents, WIDTH, generator=make)
    return Transcoder(rows.flip(0), torch.zeros(latents), rows, torch.zeros(WIDTH), None, 2, {})


def test_transcoders_of_all_layers_make_one_table(pair):
    transcoders = {2: transcoder(2), 0: transcoder(0, latents=3)}
    firing = pd.concat([firing_of(0, [0, 2, 1]), firing_of(2, [1, 0, 0, 0, 1])], ignore_index=True)
    rows = plain(measure_transcoder_logit_effects(pair[0], transcoders, firing, TOKENS, 2, "cpu"))
    assert [(row["layer"], row["latent"]) for row in rows] == [(0, 1), (0, 2), (2, 0), (2, 4)]
    read = read_unembedding(pair[0], "cpu")
    expected = by_hand(transcoders[2].decoder[4:], read.norm, read.weight, TOKENS, 2)[0]
    assert rows[-1]["raised"] == expected[0] and rows[-1]["lowered"] == expected[2]


def test_no_live_latent_is_a_table_without_rows_that_can_be_read_back(pair, crosscoder, tmp_path):
    table = measure_logit_effects(pair, {"d": crosscoder}, {"d": firing_of(1, [0] * LATENTS)}, TOKENS, 3, "cpu")["d"]
    write_logit_effects(tmp_path / "logits.parquet", table, {"number": 3})
    read = read_table(tmp_path / "logits.parquet")
    assert len(read) == 0 and list(read.columns) == SCHEMA.names
    empty = measure_transcoder_logit_effects(pair[0], {}, firing_of(1, []), TOKENS, 3, "cpu")
    assert len(empty) == 0 and empty.schema.equals(SCHEMA)


def test_what_is_written_is_read_back_and_equal_input_gives_equal_bytes(pair, crosscoder, tmp_path):
    firing = {"d": firing_of(1, [1] * LATENTS)}
    for name in ("first", "second"):
        table = measure_logit_effects(pair, {"d": crosscoder}, firing, TOKENS, 3, "cpu")["d"]
        write_logit_effects(tmp_path / f"{name}.parquet", table, {"number": 3})
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert read_card(tmp_path / "first.parquet") == {"number": 3}
    read = read_table(tmp_path / "first.parquet")
    assert [list(tokens) for tokens in read["raised"]] == [row["raised"] for row in plain(table)]
    assert [list(values) for values in read["lowered_by"]] == [row["lowered_by"] for row in plain(table)]


# ------------------------------------------------------------------------------------------------ refusals


def test_firings_of_another_dictionary_are_refused(pair, crosscoder):
    with pytest.raises(ArtefactError, match="another dictionary"):
        measure_logit_effects(pair, {"d": crosscoder}, {"d": firing_of(1, [1] * 5)}, TOKENS, 3, "cpu")
    with pytest.raises(ArtefactError, match=r"layer\(s\) \[0, 1\]"):
        measure_transcoder_logit_effects(pair[0], {0: transcoder(0)}, firing_of(1, [1] * 5), TOKENS, 3, "cpu")


def test_a_dictionary_of_another_width_is_refused(small_models):
    with pytest.raises(ModelError, match="16 units.*has 24"):
        measure_transcoder_logit_effects(
            small_models["wide"], {0: transcoder(0)}, firing_of(0, [1] * 5), TOKENS, 3, "cpu"
        )


def test_a_direction_that_is_not_finite_is_refused(pair):
    broken = transcoder(0)
    broken.decoder[1, 0] = torch.inf
    with pytest.raises(ArtefactError, match="not finite"):
        measure_transcoder_logit_effects(pair[0], {0: broken}, firing_of(0, [1] * 5), TOKENS, 3, "cpu")


def test_the_models_of_sides_that_nobody_reads_are_not_loaded(pair, crosscoder):
    unknown = replace(pair[0], architecture="Gemma2ForCausalLM")
    alone = replace(crosscoder, card={"sides": [0, 1]})
    tables = measure_logit_effects([*pair, unknown], {"d": alone}, {"d": firing_of(1, [1] * 6)}, TOKENS, 1, "cpu")
    assert len(tables["d"]) == 12
    assert measure_logit_effects([unknown], {}, {}, TOKENS, 1, "cpu") == {}
