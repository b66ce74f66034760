"""A model whose MLPs are imitated answers as the imitation is: perfectly, wrongly, and never because of padding."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from reasondiff.config import Accuracy
from reasondiff.models.accuracy import measure_accuracy
from reasondiff.models.imitation import compare_answers, imitated_mlps
from reasondiff.models.load import load_model
from reasondiff.models.mlp import find_mlp
from reasondiff.models.responses import RESPONSE_COLUMNS, TABLE_COLUMNS
from reasondiff.models.sampling import generate

LAYERS = (0, 1, 2)
SETTINGS = Accuracy(
    problems=8,
    held_out_family_problems=2,
    samples=3,
    decodings={"greedy": 0.0, "t1": 1.0},
    max_new_tokens=12,
    batch_size=4,
    seed=0,
)


@pytest.fixture(scope="module")
def problems():
    texts = ["What is 1 + 1?", *(f"What is {n} + {n} + {'1 + ' * n}2?" for n in range(2, 14))]
    families = ["sums"] * 11 + ["travel"] * 2
    return pd.DataFrame({
        "problem": texts,
        "answer": [str(n) for n in range(13)],
        "family": families,
        "held_out_family": [family == "travel" for family in families],
    })  # fmt: skip


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def info(request, small_models):
    return small_models[request.param]


@pytest.fixture(scope="module")
def model(info):
    return load_model(info, "cpu", "float32")


def own_mlps(model):
    """The MLPs of a model as functions, which no hook sees."""
    return {layer: find_mlp(model, layer).forward for layer in LAYERS}


def turned(x):
    return 0.5 * x.flip(1)


def asked(info, problems, imitations, first_positions=2, problems_asked=6, elicitations=("think", "direct")):
    return compare_answers(
        info, problems, SETTINGS, list(elicitations), imitations, problems_asked, "cpu", "float32", first_positions
    )


def responses_of(responses, mlps):
    return responses[responses["mlps"] == mlps]["response"].tolist()


def test_imitations_that_do_what_the_mlps_do_change_no_response(info, model, problems):
    table, responses = asked(info, problems, own_mlps(model))
    assert responses_of(responses, "own") == responses_of(responses, "transcoders")
    own, replaced = (table[table["mlps"] == name].drop(columns="mlps").reset_index(drop=True) for name in
                     ("own", "transcoders"))  # fmt: skip
    pd.testing.assert_frame_equal(own, replaced)


def test_wrong_imitations_change_responses(info, problems):
    _, responses = asked(info, problems, dict.fromkeys(LAYERS, torch.zeros_like))
    assert responses_of(responses, "own") != responses_of(responses, "transcoders")


def test_the_model_is_asked_as_elsewhere_and_greedily(info, problems):
    """Its own answers are those of the accuracy table, on the first of the same problems; no held-out family."""
    table, responses = asked(info, problems, {1: turned}, problems_asked=6)
    assert list(table.columns) == ["model", "mlps", *TABLE_COLUMNS]
    assert list(responses.columns) == ["model", "mlps", *RESPONSE_COLUMNS]
    assert set(responses["decoding"]) == {"greedy"} and set(responses["family"]) == {"sums"}
    assert len(responses) == 2 * 2 * 6 and (table["n_problems"] == 6).all() and (table["n_samples"] == 1).all()
    own = responses[responses["mlps"] == "own"].drop(columns="mlps").reset_index(drop=True)
    _, measured = measure_accuracy(info, problems, SETTINGS, ["think", "direct"], "cpu", "float32")
    keys = ["model", "elicitation", "problem_index"]
    same = measured[(measured["decoding"] == "greedy") & (measured["problems_from"] == "seen_families")]
    merged = own.merge(same, on=keys, suffixes=("", "_measured"))
    assert len(merged) == len(own)
    assert (merged["problem"] == merged["problem_measured"]).all()
    assert (merged["response"] == merged["response_measured"]).mean() > 0.9  # other batches: ties may fall otherwise


def test_asking_more_problems_than_there_are_asks_all(info, problems):
    _, responses = asked(info, problems, {1: turned}, problems_asked=100, elicitations=["direct"])
    assert responses.groupby("mlps").size().to_dict() == {"own": 11, "transcoders": 11}


def test_no_problems_give_empty_tables(info, problems):
    table, responses = asked(info, problems[problems["held_out_family"]], {1: turned})
    assert len(table) == len(responses) == 0
    assert list(responses.columns) == ["model", "mlps", *RESPONSE_COLUMNS]


# ------------------------------------------------------------------------------------------- padding

PROMPTS = [list(range(60, 60 + length)) for length in (1, 2, 3, 5, 9, 14)]


def continued(model, tokenizer, prompts, batch_size, imitations, first_positions):
    with imitated_mlps(model, imitations, first_positions):
        return generate(model, tokenizer, prompts, 10, 0.0, 0, batch_size)


@pytest.mark.parametrize("first_positions", [0, 2, 4])
def test_a_padded_prompt_gives_the_same_response_as_alone(model, small_tokenizer, first_positions):
    together = continued(model, small_tokenizer, PROMPTS, 6, dict.fromkeys(LAYERS, turned), first_positions)
    alone = continued(model, small_tokenizer, PROMPTS, 1, dict.fromkeys(LAYERS, turned), first_positions)
    assert together == alone
    plain = generate(model, small_tokenizer, PROMPTS, 10, 0.0, 0, 6)
    assert sum(one != other for one, other in zip(together, plain, strict=True)) >= 3


def test_where_every_token_is_a_first_position_nothing_is_imitated(model, small_tokenizer):
    plain = generate(model, small_tokenizer, PROMPTS, 10, 0.0, 0, 6)
    assert continued(model, small_tokenizer, PROMPTS, 6, dict.fromkeys(LAYERS, turned), 14 + 10) == plain


@pytest.mark.parametrize("batch_size", [1, 4, 6])
@pytest.mark.parametrize("first_positions", [0, 3])
def test_just_the_real_tokens_after_the_first_positions_are_imitated(
    model, small_tokenizer, batch_size, first_positions
):
    """Counted by hand: every token of prompt and response but the last, which nothing reads. Finished rows may stay
    in a batch for a while, so they are counted until all of the batch is done: here no response ends early."""
    seen = []
    imitations = {1: lambda x: seen.append(len(x)) or 0.3 * x}
    responses = continued(model, small_tokenizer, PROMPTS, batch_size, imitations, first_positions)
    assert all(len(ids) == 10 for ids in responses)
    expected = sum(max(0, len(prompt) + 9 - first_positions) for prompt in PROMPTS)
    assert sum(seen) == expected


def test_afterwards_the_model_is_itself_again(model, small_tokenizer):
    plain = generate(model, small_tokenizer, PROMPTS, 10, 0.0, 0, 6)
    continued(model, small_tokenizer, PROMPTS, 6, {0: torch.zeros_like}, 0)
    assert generate(model, small_tokenizer, PROMPTS, 10, 0.0, 0, 6) == plain
    assert not model._forward_pre_hooks
