"""Responses are cut at `</think>`, judged by what follows it, and averaged over prompts."""

from __future__ import annotations

import copy
import math

import pandas as pd
import pytest

from reasondiff.config import Prompts
from reasondiff.models.answering import (
    ACCURACY_COLUMNS,
    RESPONSE_COLUMNS,
    AnsweringError,
    accuracy_by_category,
    answer_prompts,
    answers_of,
)
from reasondiff.models.responses import ELICITATIONS
from reasondiff.store import read_table, write_table
from reasondiff.text.prompts import Prompt

PROMPTS = tuple(
    Prompt(id=name, category=category, text=text, expected=expected, judge=judge)
    for name, category, text, expected, judge in (
        ("sum", "arithmetic", "What is 1 + 1?", "2", "number"),
        ("product", "arithmetic", "What is 2 * 2?", "4", "number"),
        ("story", "baseline", "The old dog sleeps in the", None, "none"),
    )
)


def settings(**changes):
    plain = {
        "file": "prompts.yaml", "reasoning": "tiny", "base": None, "elicitations": {"tiny": "think"}, "samples": 3,
        "temperature": 1.0, "max_new_tokens": 6, "batch_size": 4, "think_target": "middle", "think_context_share": 0.0,
        "answer_target": "boxed",
        "seed": 0,
    }  # fmt: skip
    return Prompts.model_validate({**plain, **changes})


@pytest.fixture
def said(untrained, chain_tokenizer, monkeypatch):
    """`said(text, **settings)`: responses of a model that always says `text`, then ends (or not)."""

    def answer(text, ends=True, **changes):
        ids = chain_tokenizer.encode(text, add_special_tokens=False) + ends * [chain_tokenizer.eos_token_id]
        monkeypatch.setattr(
            "reasondiff.models.answering.generate", lambda model, tokenizer, asked, *_: [ids] * len(asked)
        )
        return answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, settings(**changes))

    return answer


@pytest.fixture(scope="module")
def random_responses(untrained, chain_tokenizer):
    return answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, settings())


# ------------------------------------------------------------------------------------------------ responses


def test_a_response_is_cut_at_the_first_end_of_thinking(said, chain_tokenizer):
    row = said("So 2.\n</think>\n\n\\boxed{2} </think> done").iloc[0]
    assert (row["think"], row["answer"]) == ("So 2.\n", "\n\n\\boxed{2} </think> done")
    assert chain_tokenizer.decode(row["response_ids"][row["think_end"]]) == "</think>"
    assert "</think>" not in chain_tokenizer.decode(row["response_ids"][: row["think_end"]])
    assert row["response"] == f"{row['think']}</think>{row['answer']}"


def test_what_is_judged_is_the_answer_and_not_the_thinking(said):
    right = said("Is it \\boxed{4}?</think>\\boxed{2}").iloc[0]
    wrong = said("It is \\boxed{2}.</think>\\boxed{4}").iloc[0]
    assert (right["given"], right["correct"]) == ("2", True)
    silent = said("It is \\boxed{2}.</think>That is all.").iloc[0]
    assert (wrong["given"], wrong["correct"]) == ("4", False)
    assert pd.isna(silent["given"]) and silent["judged"] and not silent["correct"]


def test_an_open_think_phase_has_no_answer(said):
    row = said("It is \\boxed{2}.", ends=False).iloc[0]
    assert row["think"] == row["response"] == "It is \\boxed{2}."
    assert pd.isna(row["answer"]) and pd.isna(row["given"]) and row["think_end"] == -1
    assert row["truncated"] and row["judged"] and not row["correct"]


def test_truncated_means_out_of_tokens_and_not_out_of_thoughts(said):
    assert not said("It is \\boxed{2}.").iloc[0]["truncated"]


@pytest.mark.parametrize(("way", "text"), [("solution", "We have 1+1=2. The answer is 2."), ("direct", "2}")])
def test_asked_without_a_think_phase_the_whole_response_is_the_answer(said, way, text):
    row = said(text, elicitations={"tiny": way}).iloc[0]
    assert pd.isna(row["think"]) and row["answer"] == row["response"] == text
    assert (row["think_end"], row["given"], row["correct"]) == (-1, "2", True)


def test_a_prompt_that_nobody_judges_is_neither_right_nor_wrong(said):
    row = said("</think>\\boxed{2}").set_index("prompt_id").loc[["story"]].iloc[0]
    assert not row["judged"] and not row["correct"] and pd.isna(row["expected"])


def test_each_prompt_is_answered_once_greedily_and_as_often_as_asked_by_chance(random_responses):
    assert list(random_responses.columns) == RESPONSE_COLUMNS
    counted = random_responses.groupby(["decoding", "prompt_id"], sort=False)["sample"].apply(list).to_dict()
    names = [prompt.id for prompt in PROMPTS]
    assert counted == {("greedy", n): [0] for n in names} | {("sampled", n): [0, 1, 2] for n in names}


def test_prompt_ids_are_those_that_the_elicitation_makes(random_responses, chain_tokenizer):
    for row in random_responses.to_dict("records"):
        text = next(prompt.text for prompt in PROMPTS if prompt.id == row["prompt_id"])
        assert row["prompt_ids"] == ELICITATIONS["think"].prompt(chain_tokenizer, text)


def test_greedy_and_sampled_responses_are_drawn_differently(random_responses):
    by_decoding = random_responses[random_responses["prompt_id"] == "sum"].groupby("decoding")["response"].nunique()
    assert by_decoding["greedy"] == 1 and by_decoding["sampled"] == 3


def test_equal_settings_give_equal_responses_and_another_seed_others(untrained, chain_tokenizer, random_responses):
    again = answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, settings())
    other = answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, settings(seed=1))
    pd.testing.assert_frame_equal(again, random_responses)
    differs = other["response"] != random_responses["response"]
    by_chance = random_responses["decoding"] == "sampled"
    assert differs[by_chance].any() and not differs[~by_chance].any()  # a greedy response has no seed


def test_no_samples_leave_the_greedy_responses(untrained, chain_tokenizer):
    responses = answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, settings(samples=0))
    assert responses["decoding"].tolist() == ["greedy"] * 3


def test_an_answer_asked_for_directly_is_cut_where_its_elicitation_says(untrained, chain_tokenizer):
    asked = settings(elicitations={"tiny": "direct"}, max_new_tokens=40, samples=0)
    responses = answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, asked)
    assert responses["response_ids"].map(len).max() <= ELICITATIONS["direct"].longest == 24


def test_a_base_model_needs_no_chat_template(untrained, chain_tokenizer):
    plain = copy.deepcopy(chain_tokenizer)
    plain.chat_template = None
    responses = answers_of(untrained, plain, "tiny", PROMPTS, settings(elicitations={"tiny": "solution"}, samples=0))
    assert len(responses) == 3


def test_responses_come_back_from_disk_as_they_were(random_responses, tmp_path):
    write_table(tmp_path / "responses.parquet", random_responses, {})
    again = read_table(tmp_path / "responses.parquet")
    for name in RESPONSE_COLUMNS:
        before, after = random_responses[name], again[name]
        if name.endswith("_ids"):
            before, after = before.map(list), after.map(list)
        assert before.where(before.notna(), "none").tolist() == after.where(after.notna(), "none").tolist(), name


# ------------------------------------------------------------------------------------------------ faults


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_generated(untrained, chain_tokenizer, monkeypatch):
    long = Prompt(id="long", category="arithmetic", text="one and " * 120, expected="1", judge="number")
    monkeypatch.setattr("reasondiff.models.answering.generate", lambda *_: pytest.fail("it generates"))
    with pytest.raises(AnsweringError, match=r"'long' has \d+ tokens for model 'tiny'; with 6 .* context of 256"):
        answers_of(untrained, chain_tokenizer, "tiny", [*PROMPTS, long], settings())


def test_a_prompt_that_just_fits_is_asked(untrained, chain_tokenizer):
    tokens = max(len(ELICITATIONS["think"].prompt(chain_tokenizer, prompt.text)) for prompt in PROMPTS)
    for room, fits in ((256 - tokens, True), (257 - tokens, False)):
        asked = settings(max_new_tokens=room, samples=0)
        if fits:
            assert len(answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, asked)) == 3
        else:
            with pytest.raises(AnsweringError):
                answers_of(untrained, chain_tokenizer, "tiny", PROMPTS, asked)


@pytest.mark.parametrize("instead", [None, 0])
def test_a_model_without_think_tokens_cannot_be_asked_to_think(untrained, chain_tokenizer, instead):
    """A tokenizer gives no id, or that of its unknown token, for what it does not have."""
    plain = copy.deepcopy(chain_tokenizer)
    plain.convert_tokens_to_ids = lambda token: instead
    with pytest.raises(AnsweringError, match="has no token </think>"):
        answers_of(untrained, plain, "tiny", PROMPTS, settings())


def test_a_model_that_no_elicitation_is_named_for_is_refused(small_models):
    with pytest.raises(AnsweringError, match="'llama' has no elicitation.*names tiny"):
        answer_prompts([small_models["llama"]], PROMPTS, settings(), "cpu", "float32")


def test_every_model_is_asked_in_its_own_way(small_models):
    asked = settings(elicitations={"qwen2": "solution", "other": "think"}, samples=1)
    infos = [small_models["qwen2"], small_models["other"]]
    responses, accuracy = answer_prompts(infos, PROMPTS, asked, "cpu", "float32")
    assert len(responses) == 2 * 3 * 2
    assert dict(zip(responses["model"], responses["elicitation"], strict=True)) == asked.elicitations
    assert list(accuracy.columns) == ACCURACY_COLUMNS


# ------------------------------------------------------------------------------------------------ accuracy


def responses_with(right):
    """`right`: {prompt: [right?, ...]}, None for a response that nobody judges."""
    rows = [
        {
            "model": "tiny", "elicitation": "think", "prompt_id": name, "category": name[0], "decoding": "sampled",
            "sample": sample, "think_end": 3 if flag else -1, "judged": flag is not None, "correct": bool(flag),
            "truncated": flag is False,
        }
        for name, flags in right.items()
        for sample, flag in enumerate(flags)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_accuracy_is_the_mean_over_prompts_of_the_judged_responses():
    """a1: 1/2, a2: 1/1 (one of two not judged), b1: none judged. a and all: (1/2 + 1) / 2 = 3/4."""
    table = accuracy_by_category(responses_with({"a1": [True, False], "a2": [None, True], "b1": [None, None]}), 0)
    rows = table.set_index("category")
    assert table["category"].tolist() == ["all", "a", "b"]
    assert rows.loc["all", ["prompts", "judged", "samples"]].tolist() == [3, 2, 2]
    assert rows.loc["a", "accuracy"] == rows.loc["all", "accuracy"] == 0.75
    assert rows.loc["b", ["prompts", "judged"]].tolist() == [1, 0] and math.isnan(rows.loc["b", "accuracy"])
    assert rows.loc["all", "closed_share"] == pytest.approx(2 / 6)
    assert rows.loc["all", "truncated_share"] == pytest.approx(1 / 6)


def test_the_interval_is_over_prompts_and_not_over_samples():
    """Half of 40 prompts always right, the others never: standard error sqrt(.25 / 40) = .079, whatever the samples."""
    table = accuracy_by_category(responses_with({f"a{n}": [n % 2 == 0] * 30 for n in range(40)}), 0)
    width = table["high"].iloc[0] - table["low"].iloc[0]
    assert width == pytest.approx(2 * 1.96 * 0.079, rel=0.15)


def test_few_prompts_have_no_interval():
    table = accuracy_by_category(responses_with({f"a{n}": [True, False] for n in range(5)}), 0)
    assert table["low"].isna().all() and table["accuracy"].eq(0.5).all()


def test_without_a_think_phase_no_share_of_closed_ones_is_given(said):
    table = accuracy_by_category(said("The answer is 2.", elicitations={"tiny": "solution"}), 0)
    assert table["closed_share"].isna().all()
    assert table.query("category == 'all'")["accuracy"].tolist() == [0.5, 0.5]  # of the two that are judged
