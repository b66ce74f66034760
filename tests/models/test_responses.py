"""Accuracy is stated with the elicitation, the decoding and an interval over problems."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedTokenizerBase

from reasondiff.models.responses import (
    ELICITATIONS,
    RESPONSE_COLUMNS,
    TABLE_COLUMNS,
    accuracy_table,
    bootstrap_interval,
    think_prompt_ids,
)
from reasondiff.text.traces import PREFIX

DECODINGS = {"greedy": 0.0, "T1": 1.0}


@pytest.fixture(scope="module")
def problems():
    return pd.DataFrame({
        "problem": ["What is 1 + 1?", "What is 2 + 2?", "A bus goes 3 km."],
        "answer": ["2", "4", "3"],
        "family": ["order_of_operations", "order_of_operations", "travel"],
        "held_out_family": [False, False, True],
    })  # fmt: skip


@pytest.fixture(scope="module")
def tables(untrained, chain_tokenizer, problems):
    return accuracy_table(untrained, chain_tokenizer, problems, ["think", "direct"], DECODINGS, 3, 0, 6, 4)


class ScriptedTokenizer(PreTrainedTokenizerBase):
    """A tokenizer whose ids are characters; its chat template does not open the think tag."""

    bos_token_id = None

    def __init__(self):
        pass

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return f"[{messages[0]['content']}]"

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) for letter in text]}


def test_the_think_prompt_is_the_chat_template_with_the_instruction_and_an_open_tag(chain_tokenizer):
    text = chain_tokenizer.decode(think_prompt_ids(chain_tokenizer, "What is 1 + 1?"))
    assert text == f"<|begin_of_sentence|><|User|>What is 1 + 1? {PREFIX}<|Assistant|><think>\n"


def test_a_template_that_does_not_open_the_think_tag_gets_it_opened():
    ids = think_prompt_ids(ScriptedTokenizer(), "Q")
    assert "".join(map(chr, ids)) == f"[Q {PREFIX}]<think>\n"


def test_a_model_without_begin_token_gets_none():
    ids = ELICITATIONS["solution"].prompt(ScriptedTokenizer(), "Q")
    assert "".join(map(chr, ids)) == "Question: Q Solution:"


@pytest.mark.parametrize(
    ("name", "response", "given"),
    [
        ("direct", "42}", "42"),
        ("direct", "42", None),
        ("solution", " We have 2+2=4. The answer is 4.", "4"),
        ("solution", " So the answer is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("solution", " It is four.", None),
        ("think", "Okay. </think>\n\nThe final answer is \\boxed{04}.", "4"),
    ],
)
def test_each_elicitation_reads_its_own_kind_of_answer(name, response, given):
    assert ELICITATIONS[name].answer(response) == given


def test_the_tables_have_the_columns_promised(tables):
    table, responses = tables
    assert list(table.columns) == TABLE_COLUMNS
    assert list(responses.columns) == RESPONSE_COLUMNS


def test_greedy_is_sampled_once_and_the_others_as_often_as_asked(tables):
    _, responses = tables
    counts = responses.groupby(["elicitation", "decoding"]).size()
    assert counts["think", "greedy"] == 3 and counts["think", "T1"] == 9
    assert sorted(responses.query("decoding == 'T1' and elicitation == 'think' and problem_index == 1")["sample"]) == [
        0,
        1,
        2,
    ]


def test_held_out_families_stand_in_rows_of_their_own(tables):
    table, _ = tables
    assert len(table) == 2 * 2 * 2
    assert set(table["problems_from"]) == {"seen_families", "held_out_family"}
    assert table.query("problems_from == 'seen_families'")["n_problems"].eq(2).all()


def test_the_table_is_the_mean_of_the_responses(tables):
    table, responses = tables
    for row in table.itertuples():
        chosen = responses.query(
            f"elicitation == '{row.elicitation}' and decoding == '{row.decoding}' "
            f"and problems_from == '{row.problems_from}'"
        )
        assert row.accuracy == pytest.approx(chosen["correct"].mean())
        assert row.mean_tokens == pytest.approx(chosen["tokens"].mean())
        assert row.truncated_share == pytest.approx((chosen["tokens"] == 6).mean(), abs=0.34)
        assert row.low <= row.accuracy <= row.high


def test_right_answers_count_as_right(untrained, chain_tokenizer, problems, monkeypatch):
    """A model that always says 2 is right on one of the two seen problems, and checks itself every time."""
    said = chain_tokenizer.encode("Wait. </think> \\boxed{2}", add_special_tokens=False)

    def scripted(model, tokenizer, prompts, *_):
        return [[*said, tokenizer.eos_token_id] for _ in prompts]

    monkeypatch.setattr("reasondiff.models.responses.generate", scripted)
    table, _ = accuracy_table(untrained, chain_tokenizer, problems, ["think"], {"greedy": 0.0}, 1, 0, 6, 4)
    seen = table.set_index("problems_from").loc["seen_families"]
    assert (seen["accuracy"], seen["self_check_share"], seen["truncated_share"]) == (0.5, 1.0, 0.0)


def test_no_problems_give_empty_tables(untrained, chain_tokenizer, problems):
    table, responses = accuracy_table(untrained, chain_tokenizer, problems.head(0), ["think"], DECODINGS, 2, 0, 6, 4)
    assert len(table) == len(responses) == 0
    assert list(table.columns) == TABLE_COLUMNS


def test_equal_seeds_give_equal_tables(untrained, chain_tokenizer, problems, tables):
    again = accuracy_table(untrained, chain_tokenizer, problems, ["think", "direct"], DECODINGS, 3, 0, 6, 4)
    pd.testing.assert_frame_equal(again[0], tables[0])


def test_an_unknown_elicitation_is_refused_by_name(untrained, chain_tokenizer, problems):
    with pytest.raises(ValueError, match="telepathy"):
        accuracy_table(untrained, chain_tokenizer, problems, ["telepathy"], DECODINGS, 1, 0, 6, 4)


def test_a_missing_column_is_named(untrained, chain_tokenizer, problems):
    with pytest.raises(ValueError, match="family"):
        accuracy_table(untrained, chain_tokenizer, problems[["problem", "answer"]], ["think"], DECODINGS, 1, 0, 6, 4)


def test_the_interval_narrows_with_the_root_of_the_number_of_problems():
    """Half right: standard error sqrt(.25 / n), the interval 2 * 1.96 of them."""
    for n in (100, 400):
        low, high = bootstrap_interval(np.arange(n) % 2.0, seed=0)
        assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / n), rel=0.1)


def test_the_interval_of_no_problems_is_unknown():
    assert all(math.isnan(bound) for bound in bootstrap_interval(np.array([]), seed=0))
