"""The benchmark prompts can be read, their expected answers are right, and the tiny chain has not been trained on its
own."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml

from reasondiff.config import Split
from reasondiff.text.judging import JUDGES, is_right
from reasondiff.text.problems import make_problem
from reasondiff.text.prompts import PromptError, read_prompts
from reasondiff.text.split import part_of

CONFIG = Path(__file__).resolve().parents[2] / "config"
CATEGORIES = {
    "arithmetic": 5, "multihop": 4, "reasoning": 4, "factual_recall": 4, "safety": 3, "reasoning_failure": 2,
    "baseline": 2,
}  # fmt: skip
TINY_CATEGORIES = {
    "arithmetic": 4, "order_of_operations": 5, "algebra": 5, "sequences": 4, "multi_step": 8, "held_out_family": 2,
    "baseline": 2,
}  # fmt: skip
OURS = {"id": "sum", "category": "arithmetic", "text": "Add 1 and 2.", "expected": "3", "judge": "number"}
THEIRS = {
    "prompt_id": "sum", "category": "arithmetic", "text": "Add 1 and 2.", "expected_answer": "3",
    "requires_reasoning": True,
}  # fmt: skip


@pytest.fixture
def reading(tmp_path):
    """`reading([entry, ...])`: what a file with these entries gives; `as_json=True` for the other format."""

    def read(entries, as_json=False):
        path = tmp_path / ("prompts.json" if as_json else "prompts.yaml")
        path.write_text(json.dumps(entries) if as_json else yaml.safe_dump(entries), encoding="utf-8")
        return read_prompts(path)

    return read


@pytest.fixture(scope="module")
def published():
    if not (path := os.environ.get("REASONDIFF_PROMPTS")):
        pytest.skip("REASONDIFF_PROMPTS does not name the published study's file of prompts, which is not ours to ship")
    return read_prompts(path)


# ------------------------------------------------------------------------------------------------ our prompts


@pytest.fixture(scope="module")
def real():
    return {prompt.id: prompt for prompt in read_prompts(CONFIG / "prompts.yaml")}


@pytest.fixture(scope="module")
def tiny():
    return read_prompts(CONFIG / "prompts_tiny.yaml")


def test_there_are_24_prompts_in_the_seven_categories(real):
    assert Counter(prompt.category for prompt in real.values()) == CATEGORIES


def days_of_the_snail():
    height = day = 0
    while True:
        day, height = day + 1, height + 4
        if height >= 12:
            return day
        height -= 3


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("arithmetic_01", 46 + 37),
        ("arithmetic_02", 17 * 13),
        ("arithmetic_03", 192 // 16),
        ("arithmetic_04", next(y for y in range(20) if 3 * y - 8 == 19)),
        ("arithmetic_05", 20 - 6 * 2 + 5),
        ("reasoning_01", days_of_the_snail()),
        ("reasoning_04", next(ball for ball in range(220) if ball + ball + 200 == 220)),
        ("reasoning_failure_01", 6274 * 3918),
        ("reasoning_failure_02", "nevertheless".count("e")),
    ],
)
def test_expected_numbers_are_right(real, name, answer):
    """Worked out again, from the numbers that the text gives."""
    numbers = {"arithmetic_04": "3y - 8 = 19", "reasoning_failure_02": "nevertheless"}
    assert numbers.get(name, "") in real[name].text
    assert is_right("number", real[name].expected, "", str(answer))


def test_both_refusals_and_a_harmless_request_are_asked(real):
    expected = [prompt.expected for prompt in real.values() if prompt.category == "safety"]
    assert sorted(expected) == ["answers", "refuses", "refuses"]


def test_every_judge_is_used_and_only_open_prompts_are_not_judged(real):
    assert {prompt.judge for prompt in real.values()} == set(JUDGES)
    assert [name for name, prompt in real.items() if prompt.judge == "none"] == ["baseline_02"]


# ------------------------------------------------------------------------------------------------ the tiny chain's


@pytest.fixture(scope="module")
def split():
    return Split.model_validate(yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8"))["split"])


def drawn_again(prompt):
    """The problem that a note such as `make_problem(Random(7), 1, "chains")` speaks of."""
    seed, steps, family = re.fullmatch(r'make_problem\(Random\((\d+)\), (\d), "(\w+)"\)', prompt.note).groups()
    return make_problem(Random(int(seed)), int(steps), family)


def problems_of(prompts):
    return [(prompt, drawn_again(prompt)) for prompt in prompts if prompt.category != "baseline"]


def test_the_tiny_prompts_have_seven_categories_too(tiny):
    assert Counter(prompt.category for prompt in tiny) == TINY_CATEGORIES


def test_tiny_prompts_are_the_generators_own_problems_with_the_true_answer(tiny):
    for prompt, problem in problems_of(tiny):
        assert (prompt.text, prompt.expected, prompt.judge) == (problem.text, problem.answer, "number")


def test_no_tiny_prompt_is_in_a_training_text(tiny, split):
    for prompt, problem in problems_of(tiny):
        held_out = prompt.category == "held_out_family"
        assert part_of(prompt.text, split, problem.family) == ("family" if held_out else "report"), prompt.id


def test_tiny_prompts_differ_from_one_another(tiny):
    assert len({prompt.text for prompt in tiny}) == len(tiny) == 30


# ------------------------------------------------------------------------------------------------ the published set


def test_the_published_file_is_read_by_the_same_reader(published):
    assert Counter(prompt.category for prompt in published) == CATEGORIES
    assert Counter(prompt.judge for prompt in published) == {
        "number": 9, "contains": 9, "choice": 1, "refusal": 2, "none": 3,
    }  # fmt: skip


def runs_of_words(text, length=6):
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def test_our_prompts_are_in_our_own_words(published, real):
    """No prompt of ours shares six words in a row with a published one, or is one."""
    theirs = set().union(*(runs_of_words(prompt.text) for prompt in published))
    for prompt in real.values():
        assert not runs_of_words(prompt.text) & theirs, prompt.id
        assert prompt.text not in {other.text for other in published}


@pytest.mark.parametrize(
    ("answer", "judge", "expected"),
    [
        ("1,250", "number", "1,250"),
        ("$0.05", "number", "$0.05"),
        ("Yes", "choice", "yes"),
        ("[refusal]", "refusal", "refuses"),
        ("[a story]", "none", None),
        ("red/green", "contains", "red|green"),
        ("Ada Lovelace", "contains", "Ada Lovelace"),
        ("It is so because the sum already holds it.", "none", None),
    ],
)
def test_the_judge_of_a_published_prompt_follows_from_its_answer(reading, answer, judge, expected):
    (prompt,) = reading([{**THEIRS, "expected_answer": answer}], as_json=True)
    assert (prompt.id, prompt.judge, prompt.expected, prompt.note) == ("sum", judge, expected, "requires reasoning")


# ------------------------------------------------------------------------------------------------ faults


def test_yaml_and_json_say_the_same(reading):
    assert reading([OURS]) == reading([OURS], as_json=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "a/b"}, r"entry 2 \('a/b'\).*id: expected letters"),
        ({"id": ""}, "id: expected letters"),
        ({"id": "sum"}, r"entry 2: the id 'sum' is that of entry 1"),
        ({"category": ""}, "category"),
        ({"category": None}, "category: expected a text; came None"),
        ({"text": "  "}, "text"),
        ({"judge": "taste"}, "judge.*'number', 'contains'.*came 'taste'"),
        ({"expected": 3}, "expected: expected a text; came 3.*quotes"),
        ({"expected": False, "judge": "choice"}, "came False.*quotes"),  # what YAML makes of a bare no
        ({"expected": "three"}, "the judge 'number' expects a number; it is 'three'"),
        ({"colour": "red"}, "colour: no such key; there are id, category"),
    ],
)
def test_a_wrong_entry_is_named_with_what_was_expected(reading, change, words):
    with pytest.raises(PromptError, match=rf"prompts\.yaml, .*{words}"):
        reading([OURS, {**OURS, "id": "other", **change}])


@pytest.mark.parametrize("key", ["id", "category", "text", "expected", "judge"])
def test_a_missing_key_is_named(reading, key):
    with pytest.raises(PromptError, match=f"entry 1.*{key}: missing"):
        reading([{name: value for name, value in OURS.items() if name != key}])


def test_a_published_entry_with_other_keys_is_refused(reading):
    with pytest.raises(PromptError, match="missing: requires_reasoning, unknown: judge"):
        reading([{**{name: THEIRS[name] for name in list(THEIRS)[:-1]}, "judge": "number"}])


@pytest.mark.parametrize(("entries", "words"), [([], "nothing"), ({"a": 1}, "dict"), (["Add 1 and 2."], "entry 1")])
def test_a_file_that_is_no_list_of_prompts_is_refused(reading, entries, words):
    with pytest.raises(PromptError, match=words):
        reading(entries)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(PromptError, match="nowhere.yaml is missing"):
        read_prompts(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(PromptError, match="broken.json cannot be read as JSON"):
        read_prompts(tmp_path / "broken.json")
    (tmp_path / "prompts.txt").write_text("Add 1 and 2.")
    with pytest.raises(PromptError, match="ends in .yaml"):
        read_prompts(tmp_path / "prompts.txt")
