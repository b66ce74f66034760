"""A target stands where its rule says, after the very ids that the model read and wrote."""

from __future__ import annotations

import dataclasses
import logging
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from reasondiff.config import Prompts
from reasondiff.graphs.targets import (
    COLUMNS,
    PHASES,
    TargetError,
    answer_place,
    choose_targets,
    read_response,
    read_targets,
    think_place,
)
from reasondiff.models.load import load_model
from reasondiff.models.responses import ELICITATIONS
from reasondiff.store import ArtefactError, read_table, write_table


class Words:
    """A tokenizer whose ids number the words it is made of; the last one ends a text."""

    def __init__(self, *words):
        self.words = [*words, "<end>"]
        self.eos_token_id = len(words)

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return "".join(self.words[one] for one in ids)


def place_in(*words, way="think", answer_target="boxed"):
    """Where the answer of a response of these words, and the end of text, begins."""
    tokenizer = Words(*words)
    end = words.index("</think>") if "</think>" in words else -1
    row = {"response_ids": list(range(len(words) + 1)), "think_end": end}
    return answer_place(row, tokenizer, way, answer_target)


# ------------------------------------------------------------------------------------------------ answer


def test_the_answer_begins_with_the_first_token_inside_the_box():
    assert place_in("Hm", "</think>", "So \\boxed", "{", "7", "2", "}") == 4


def test_a_token_that_holds_the_brace_and_the_first_digit_is_the_target():
    assert place_in("Hm", "</think>", "So \\boxed", "{7", "2}", ".") == 3


def test_blanks_inside_the_box_are_passed_over():
    assert place_in("Hm", "</think>", "\\boxed{", " ", "\n", " 7", "}") == 5


def test_the_last_complete_box_counts():
    assert place_in("</think>", "\\boxed{", "1", "} no \\boxed{", "2", "} or \\boxed{", "3") == 4


def test_braces_inside_the_box_are_matched():
    assert place_in("</think>", "\\boxed{", "\\frac{", "1", "}{", "2", "}", "}") == 2


def test_a_box_in_the_thinking_is_no_answer():
    assert place_in("\\boxed{", "7", "}", "</think>", "so ", "7") == "the answer has no complete box"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("Hm \\boxed{", "7", "}"), "the think phase is not closed"),
        (("</think>", "It is 7."), "the answer has no complete box"),
        (("</think>", "\\boxed{", "7"), "the answer has no complete box"),
        (("</think>", "\\boxed{", "}"), "the last box is empty"),
        (("</think>", "\\boxed{", " }"), "the last box is empty"),
        ((), "the response is empty"),
    ],
)
def test_where_no_box_can_be_read_the_reason_is_given(words, reason):
    assert place_in(*words) == reason


def test_the_first_target_is_the_first_visible_token_after_the_think_phase():
    assert place_in("Hm", "</think>", "\n\n", " It", " is", answer_target="first") == 3


def test_nothing_after_the_think_phase_is_no_answer():
    assert place_in("Hm", "</think>", "\n", answer_target="first") == "nothing follows the think phase"


def test_a_solution_answers_after_its_last_answer_is():
    words = (" The answer is", " 3", ". No, the answer is", " $", "12", ". The answer is", " unknown")
    assert place_in(*words, way="solution") == 4
    assert place_in(" It is", " 3", way="solution") == 'no number follows "answer is"'


def test_a_direct_answer_begins_at_once():
    assert place_in("4", "2}", way="direct") == 0
    assert place_in(way="direct") == "the response is empty"


@pytest.mark.parametrize("text", ["naïve → 漢字 5 🙂 ", "Okay, let me think.\n", "e\u0301 – «7»  "])
def test_places_agree_with_the_tokenizers_own_offsets(small_tokenizer, text):
    """The token whose characters, by the tokenizer's offsets, hold the first digit in the box."""
    whole = f"{text}</think>{text}\\boxed{{42}}"
    encoded = small_tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    row = {"response_ids": ids, "think_end": ids.index(small_tokenizer.convert_tokens_to_ids("</think>"))}
    normal = small_tokenizer.decode(ids)
    digit = normal.rindex("42") + len(whole) - len(normal)  # offsets count the characters as they were written
    holding = [number for number, (start, end) in enumerate(encoded["offset_mapping"]) if start <= digit < end]
    assert answer_place(row, small_tokenizer, "think", "boxed") == holding[0]
    assert small_tokenizer.decode([ids[holding[0]]]) == "4"


# ------------------------------------------------------------------------------------------------ think


def thought(entropy, answer, end, rule="matched_entropy", think="Hm", asked=0, least=0.0):
    settings = SETTINGS.model_copy(update={"think_target": rule, "think_context_share": least})
    row = {"think": think, "think_end": end, "prompt_ids": [0] * asked}
    return think_place(row, np.array(entropy, dtype=float), answer, settings)


def test_the_think_target_is_as_uncertain_as_the_answer():
    """Answer at 12 with 0.5. Inside 3..6: distances .4, .1, .3, .5."""
    entropy = [0.5, 0.5, 0.5, 0.9, 0.6, 0.8, 0.0, 0.5, 0.5, 0.5, 1, 1, 0.5]
    assert thought(entropy, 12, end=10) == 4


def test_of_equally_uncertain_positions_the_last_is_taken():
    entropy = [0.5, 0.5, 0.5, 0.75, 0.25, 0.75, 0.0, 0.5, 0.5, 0.5, 1, 1, 0.5]
    assert thought(entropy, 12, end=10) == 5


def test_the_first_and_last_three_tokens_of_a_think_phase_are_no_targets():
    """Only place 3 of 7 is left, however far off it is."""
    assert thought([0, 0, 0, 9, 0, 0, 0, 1, 0], 8, end=7) == 3
    assert "6 tokens; at least 7" in thought([0] * 9, 8, end=6)


def test_a_context_too_short_to_be_compared_with_the_answers_is_no_target():
    """Answer after 8 + 12 tokens: at .7 contexts of 14 tokens count, that is places from 6 on; at .65 of 13, from 5."""
    entropy = [0.5] * 5 + [0.6, 0.0, 0.0, 1, 1, 1, 1, 0.5]
    assert thought(entropy, 12, end=10, asked=8, least=0.7) == 6
    assert thought(entropy, 12, end=10, asked=8, least=0.65) == 5
    assert thought(entropy, 12, end=10, asked=8, least=0.8) == (
        "no context in the think phase is 0.8 as long as that of the answer"
    )


def test_the_middle_of_the_think_phase():
    assert thought([0.0] * 12, 11, end=9, rule="middle") == 4
    assert thought([0.0] * 12, "no box", end=-1, rule="middle") == 6  # never closed: all of it


def test_without_an_answer_or_a_think_phase_the_reason_is_given():
    assert thought([0.0] * 12, "no box", end=9) == "there is no answer target to match: no box"
    assert thought([0.0] * 12, 11, end=-1, think=None) == "the model is asked without a think phase"
    assert thought([0.0] * 12, 11, end=-1, think=math.nan) == "the model is asked without a think phase"  # from disk


# ------------------------------------------------------------------------------------------------ reading


def test_a_reading_is_of_the_distribution_before_the_token():
    """After token 0: (1/2, 1/4, 1/4), after token 1: (0, 1, 0), after token 2: (.1, .2, .7).

    Prompt 0, response 2, 1: token 2 with 1/4 and one more probable, entropy 1.5 ln 2; then token 1 with .2, one more
    probable, entropy -(.1 ln .1 + .2 ln .2 + .7 ln .7) = .8018.
    """
    after = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]]).log()

    def model(input_ids, use_cache, logits_to_keep):
        return SimpleNamespace(logits=after[input_ids][:, -logits_to_keep:])

    model.device = torch.device("cpu")
    reading = read_response(model, [1, 0], [2, 1])
    np.testing.assert_allclose(reading.probability, [0.25, 0.2], rtol=1e-6)
    np.testing.assert_allclose(reading.entropy, [1.5 * math.log(2), 0.80182], rtol=1e-5)
    assert reading.rank.tolist() == [1, 1]
    np.testing.assert_allclose(read_response(model, [1], [1]).entropy, [0.0])  # a certain token


def test_a_reading_equals_one_token_at_a_time(small_models):
    model = load_model(small_models["qwen2"], "cpu", "float32")
    ids = np.random.default_rng(0).integers(0, 420, 320).tolist()
    reading = read_response(model, ids[:5], ids[5:])  # longer than what is held in memory at a time
    for place in (0, 100, 255, 256, 314):
        with torch.inference_mode():
            chances = model(torch.tensor([ids[: 5 + place]])).logits[0, -1].double().softmax(-1)
        said = chances[ids[5 + place]]
        assert reading.probability[place] == pytest.approx(float(said), rel=1e-3)
        assert reading.entropy[place] == pytest.approx(float(-(chances * chances.log()).sum()), rel=1e-4)
        assert reading.rank[place] == int((chances > said).sum())


# ------------------------------------------------------------------------------------------------ choosing


SETTINGS = Prompts.model_validate({
    "file": "prompts.yaml", "reasoning": "qwen2", "base": "other",
    "elicitations": {"qwen2": "think", "other": "solution"}, "samples": 4, "temperature": 1.0, "max_new_tokens": 60,
    "batch_size": 4, "think_target": "matched_entropy", "think_context_share": 0.0,
    "answer_target": "boxed", "seed": 0,
})  # fmt: skip
THINK = "Okay, let me think. First, 2+3=5. So the answer is 5."


@pytest.fixture(scope="module")
def response(small_tokenizer):
    """`response("sum", "sampled", 1, text, correct)`: a row of a table of responses."""

    def make(prompt_id, decoding, sample, text, correct=True, model="qwen2"):
        way = SETTINGS.elicitations[model]
        prompt_ids = ELICITATIONS[way].prompt(small_tokenizer, f"What is {prompt_id}?")
        ids = small_tokenizer.encode(text, add_special_tokens=False) + [small_tokenizer.eos_token_id]
        think, closed, answer = text.partition("</think>")
        end = ids.index(small_tokenizer.convert_tokens_to_ids("</think>")) if closed else -1
        given = ELICITATIONS[way].answer(text if way == "solution" else answer)
        return {
            "model": model, "elicitation": way, "prompt_id": prompt_id, "category": "arithmetic",
            "decoding": decoding, "sample": sample, "prompt_ids": prompt_ids, "response_ids": ids, "response": text,
            "think": think if way == "think" else None, "answer": answer if closed else None, "think_end": end,
            "given": given, "expected": "5", "judged": correct is not None, "correct": bool(correct),
            "truncated": False,
        }  # fmt: skip

    return make


@pytest.fixture(scope="module")
def responses(response):
    """`sum` has every target; `open` has none but `prompt`, since its think phase is never closed."""
    box, wrong = "</think>\n\n\\boxed{5}", "</think>\n\n\\boxed{6}"
    rows = [
        response("sum", "greedy", 0, f"{THINK}{box}"),
        response("sum", "sampled", 0, f"{THINK}{THINK}{THINK}{box}"),
        response("sum", "sampled", 1, f"{THINK} So{box}"),
        response("sum", "sampled", 2, f"{THINK} So{wrong}", correct=False),
        response("sum", "sampled", 3, f"{THINK}{THINK}{wrong}", correct=False),
        response("open", "greedy", 0, THINK, correct=False),
        response("open", "sampled", 0, f"{THINK}{box}"),
        response("open", "sampled", 1, THINK, correct=False),  # wrong, and without an answer
        response("sum", "greedy", 0, " We have 2+3=5. The answer is 5.", model="other"),
        response("open", "greedy", 0, " Hm.", correct=False, model="other"),
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def infos(small_models):
    return [small_models["qwen2"], small_models["other"]]


@pytest.fixture(scope="module")
def chosen(responses, infos):
    return choose_targets(responses, infos, SETTINGS, "cpu", "float32")


def of(chosen, prompt_id):
    return chosen[chosen["prompt_id"] == prompt_id].set_index("target")


def test_every_prompt_has_a_row_for_every_target(chosen):
    assert list(chosen.columns) == COLUMNS
    assert chosen["prompt_id"].tolist() == ["sum"] * 6 + ["open"] * 6
    assert chosen["target"].tolist() == [*PHASES] * 2
    assert chosen["phase"].tolist() == ["prompt", "think", "answer", "answer", "answer", "answer"] * 2


def test_a_context_is_the_prompt_and_the_response_up_to_the_target(chosen, responses):
    for row in chosen[chosen["reason"].isna()].to_dict("records"):
        said = responses[
            (responses["model"] == row["model"])
            & (responses["prompt_id"] == row["prompt_id"])
            & (responses["decoding"] == row["decoding"])
            & (responses["sample"] == row["sample"])
        ].iloc[0]
        whole = [*said["prompt_ids"], *said["response_ids"]]
        assert [*row["ids"], row["target_id"]] == whole[: len(row["ids"]) + 1]
        assert len(row["ids"]) >= len(said["prompt_ids"])


def test_targets_stand_in_their_phases(chosen, small_tokenizer):
    rows = of(chosen, "sum")
    close = small_tokenizer.convert_tokens_to_ids("</think>")
    assert small_tokenizer.decode(rows.loc["prompt", "ids"]).endswith("<think>\n")
    assert close not in [*rows.loc["think", "ids"], rows.loc["think", "target_id"]]
    assert len(rows.loc["think", "ids"]) >= len(rows.loc["prompt", "ids"]) + 3
    for name, token in (("answer", "5"), ("correct", "5"), ("incorrect", "6")):
        assert rows.loc[name, "ids"].count(close) == 1
        assert small_tokenizer.decode(rows.loc[name, "ids"]).endswith("\\boxed{")
        assert rows.loc[name, "target_token"] == token
    assert small_tokenizer.decode(rows.loc["own", "ids"]).endswith("The answer is ")
    assert rows.loc["own", ["model", "target_token"]].tolist() == ["other", "5"]


def test_of_correct_and_incorrect_responses_those_nearest_in_length_are_taken(chosen):
    rows = of(chosen, "sum")
    assert rows.loc[["correct", "incorrect"], "sample"].tolist() == [1, 2]
    assert rows.loc[["correct", "incorrect"], "decoding"].tolist() == ["sampled"] * 2
    assert len(rows.loc["correct", "ids"]) == len(rows.loc["incorrect", "ids"])


def test_of_equally_near_couples_the_first_is_taken(response, infos):
    texts = {flag: f"{THINK}</think>\\boxed{{{5 if flag else 6}}}" for flag in (True, False)}
    rows = [response("sum", "greedy", 0, texts[True])]
    rows += [response("sum", "sampled", n, texts[n % 2 == 1], correct=n % 2 == 1) for n in range(6)][::-1]
    settings = SETTINGS.model_copy(update={"base": None})
    found = of(choose_targets(pd.DataFrame(rows), infos, settings, "cpu", "float32"), "sum")
    assert found.loc[["correct", "incorrect"], "sample"].tolist() == [1, 0]


def test_probability_entropy_and_rank_are_those_of_the_model_that_answered(chosen, infos):
    models = {info.name: load_model(info, "cpu", "float32") for info in infos}
    for row in chosen[chosen["reason"].isna()].to_dict("records"):
        with torch.inference_mode():
            chances = models[row["model"]](torch.tensor([row["ids"]])).logits[0, -1].double().softmax(-1)
        said = chances[row["target_id"]]
        assert row["probability"] == pytest.approx(float(said), rel=1e-3)
        assert row["entropy"] == pytest.approx(float(-(chances * chances.log()).sum()), rel=1e-3)
        assert row["rank"] == int((chances > said).sum())


def test_a_missing_target_has_a_row_with_the_reason(chosen):
    rows = of(chosen, "open")
    assert rows["reason"].isna().tolist() == [True, False, False, False, False, False]
    assert rows.loc["answer", "reason"] == "the think phase is not closed"
    assert rows.loc["think", "reason"].startswith("there is no answer target to match")
    assert rows.loc["correct", "reason"] == rows.loc["incorrect", "reason"]
    assert rows.loc["correct", "reason"].startswith("1 of 2 sampled responses give a correct answer and 0 an incorrect")
    assert rows.loc["own", "reason"] == 'no number follows "answer is"'
    missing = rows[rows["reason"].notna()]
    assert (missing["target_id"] == -1).all() and not missing["ids"].map(len).any()
    assert missing[["probability", "entropy"]].isna().all(axis=None)


def test_a_response_that_nobody_judged_is_neither_correct_nor_incorrect(response, infos):
    text = f"{THINK}</think>\\boxed{{5}}"
    rows = [response("sum", "greedy", 0, text), response("sum", "sampled", 0, text)]
    rows += [response("sum", "sampled", 1, text, correct=None)]
    settings = SETTINGS.model_copy(update={"base": None})
    found = of(choose_targets(pd.DataFrame(rows), infos, settings, "cpu", "float32"), "sum")
    assert "1 of 2 sampled responses give a correct answer and 0 an incorrect one" in found.loc["incorrect", "reason"]


def test_a_response_without_an_answer_to_read_is_not_compared(response, infos):
    """Its answer part has a first token, but what is wrong with it is that no answer is there."""
    text = f"{THINK}</think>\\boxed{{5}}"
    rows = [response("sum", "greedy", 0, text), response("sum", "sampled", 0, text)]
    rows += [response("sum", "sampled", 1, f"{THINK}</think>Hm.", correct=False)]
    settings = SETTINGS.model_copy(update={"base": None, "answer_target": "first"})
    found = of(choose_targets(pd.DataFrame(rows), infos, settings, "cpu", "float32"), "sum")
    assert "1 of 2 sampled responses give a correct answer and 0 an incorrect one" in found.loc["incorrect", "reason"]


def test_without_a_base_there_is_no_own_target(responses, infos):
    settings = SETTINGS.model_copy(update={"base": None})
    found = choose_targets(responses, infos[:1], settings, "cpu", "float32")
    assert found.loc[found["target"] == "own", "reason"].eq("the study names no base model for its prompts").all()
    assert len(found) == 12


def test_targets_come_back_from_disk_as_they_were(chosen, tmp_path):
    write_table(tmp_path / "targets.parquet", chosen, {})
    for target, row in zip(read_targets(tmp_path / "targets.parquet"), chosen.to_dict("records"), strict=True):
        again = dataclasses.asdict(target)
        for name in COLUMNS:
            assert again[name] == row[name] or (pd.isna(again[name]) and pd.isna(row[name])), name
        assert type(target.target_id) is int and isinstance(target.ids, tuple)
        assert target.reason is None or isinstance(target.reason, str)


def test_responses_from_disk_give_the_same_bytes(responses, infos, chosen, tmp_path):
    write_table(tmp_path / "responses.parquet", responses, {})
    again = choose_targets(read_table(tmp_path / "responses.parquet"), infos, SETTINGS, "cpu", "float32")
    for name, table in (("one", chosen), ("two", again)):
        write_table(tmp_path / f"{name}.parquet", table, {})
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


# ------------------------------------------------------------------------------------------------ faults


def test_ids_that_the_base_does_not_have_are_refused(responses, infos):
    small = dataclasses.replace(infos[1], vocabulary=100)
    with pytest.raises(TargetError, match=r"prompt 'sum', target 'prompt': id \d+ .*none of the 100 of model 'other'"):
        choose_targets(responses, [infos[0], small], SETTINGS, "cpu", "float32")


def test_ids_that_the_base_never_saw_are_noted(responses, infos, chosen, small_tokenizer, caplog):
    opened = small_tokenizer.convert_tokens_to_ids("<think>")
    puzzled = dataclasses.replace(infos[1], unseen_ids=(opened,))
    with caplog.at_level(logging.INFO):
        found = choose_targets(responses, [infos[0], puzzled], SETTINGS, "cpu", "float32")
    assert (
        "4 contexts hold ids that other never saw" in caplog.text
    )  # prompt, think, answer of one, prompt of the other
    pd.testing.assert_frame_equal(found, chosen)


def test_responses_of_another_model_or_prompt_are_not_enough(responses, infos):
    with pytest.raises(TargetError, match="there is no response of model 'qwen2'; there are those of other"):
        choose_targets(responses[responses["model"] == "other"], infos, SETTINGS, "cpu", "float32")
    with pytest.raises(TargetError, match="one greedy response of model 'other' to prompt 'open', came 0"):
        choose_targets(responses.iloc[:-1], infos, SETTINGS, "cpu", "float32")


def test_a_model_that_is_not_given_is_named(responses, infos):
    with pytest.raises(TargetError, match="need model 'qwen2'.*given are other"):
        choose_targets(responses, infos[1:], SETTINGS, "cpu", "float32")
    with pytest.raises(TargetError, match="need model 'other'.*given are qwen2"):
        choose_targets(responses, infos[:1], SETTINGS, "cpu", "float32")


def test_a_table_without_the_columns_of_targets_is_refused(chosen, tmp_path):
    write_table(tmp_path / "targets.parquet", chosen.drop(columns=["ids"]), {})
    with pytest.raises(ArtefactError, match="lacks the columns ids"):
        read_targets(tmp_path / "targets.parquet")
