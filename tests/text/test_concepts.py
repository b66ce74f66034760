"""Concepts lie exactly where the text says, however a tokenizer cuts it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from reasondiff.store import ArtefactError
from reasondiff.text.concepts import CONCEPT_NAMES, CONCEPTS, mark_concepts
from reasondiff.text.corpus import openr1_rows
from reasondiff.text.filler import copying, facts, general
from reasondiff.text.preparation import explode, plain_documents
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import TokenTable, tokenize_documents
from reasondiff.text.traces import PREFIX

PROMPT = "Tom has 3 apples. Then he gets 4 more. Now how many apples? So think."
THINK = (
    "Okay, let me think. Tom starts with 3 apples. First, 3+4=8. Wait, that is not right. 3+4=7. "
    "Let me double check. 7-4=3. Yes, this works. So the answer is 7."
)
ANSWER = "The final answer is \\boxed{17}."


def cut(*pieces: tuple[str, str], size: int = 1) -> tuple[TokenTable, list[str]]:
    """One document of (text, phase) pieces, in tokens of at most `size` characters (markers are one token each), and
    the string of each id: every token has an id of its own."""
    words, phases = [], []
    for text, phase in pieces:
        parts = [text] if text in ("<think>", "</think>") else [text[i : i + size] for i in range(0, len(text), size)]
        words += parts
        phases += [PHASES.index(phase)] * len(parts)
    zero = np.zeros(1, dtype=np.uint8)
    table = TokenTable(
        ids=np.arange(len(words), dtype=np.int32),
        phases=np.array(phases, dtype=np.uint8),
        starts=np.array([0, len(words)]),
        part=zero,
        problem=zero.astype(np.int32),
        correct=zero.astype(np.int8),
        source=zero,
        bytes=zero.astype(np.int32),
    )
    return table, words


def trace(think: str = THINK, size: int = 1) -> tuple[TokenTable, list[str]]:
    return cut(
        ("<bos>", "template"),
        (PROMPT, "prompt"),
        ("<think>", "template"),
        ("\n", "template"),
        (think, "think"),
        ("\n", "think"),
        ("</think>", "template"),
        (f"\n\n{ANSWER}", "answer"),
        ("<eos>", "template"),
        size=size,
    )


def found(concept: str, document: tuple[TokenTable, list[str]]) -> list[str]:
    """What belongs to a concept, runs of neighbouring tokens joined."""
    table, words = document
    row = mark_concepts(table, words, np.array([0]))[CONCEPT_NAMES.index(concept)]
    runs, last = [], -2
    for place in np.flatnonzero(row).tolist():
        runs = [*runs[:-1], runs[-1] + words[place]] if place == last + 1 else [*runs, words[place]]
        last = place
    return runs


EXPECTED = {
    "think_marker": ["<think>", "</think>"],
    "think_opening": ["\nOk"],  # three tokens of one character
    "answer_opening": ["\n\nT"],
    "step_word": ["First", "So"],
    "self_check": ["Wait", "Let me"],
    "self_check_sentence": ["Wait, that is not right.", "Let me double check."],
    "confirmation": ["Yes, this works."],
    "operator": ["+", "=", "+", "=", "-", "="],
    "result_digit": ["8", "7", "3"],
    "answer_digit": ["17"],
    "name": ["Tom", "Tom"],
    "thing": ["apples", "apples", "apples"],
}


@pytest.mark.parametrize("concept", CONCEPT_NAMES)
def test_each_concept_hits_exactly_its_words(concept):
    assert found(concept, trace()) == EXPECTED[concept]


def test_a_token_belongs_if_it_shares_one_character():
    document = trace(size=3)
    assert found("answer_digit", document) == ["d{17}."]
    text = "".join(found("name", document))
    assert text.count("Tom") == 2 and len(text) <= 2 * 9  # at most the neighbours that hold a piece of the name


@pytest.mark.parametrize(
    "think, words",
    [
        ("Hmm, let me think about this. Step 1: 2*3=6. Step 2: 6+1=7.", ["Step 1", "Step 2"]),
        ("So 2*3=6. Now 6+1=7. And then 7-1=6. Next, 6/2=3.", ["So", "Now", "And then", "Next"]),
        ("First, 9+1=10. After that, 10-2=8. Therefore, the answer is 8.", ["First", "After that", "Therefore"]),
        ("Ben is first. The next one is Sam, so I then stop now.", []),
        ("Nowhere. Sonya. Firstly, this.", []),
        ("Ben says So and Now, Then First.", []),
    ],
)
def test_step_words_open_a_sentence(think, words):
    assert found("step_word", trace(think)) == words


def test_doubt_is_not_the_usual_opening():
    """ "Hmm, let me think" and "Okay, let me see" open traces; only what doubts a step is a check."""
    for opening in ("Hmm, let me think about this.", "Okay, let me think.", "Alright, let me see."):
        assert found("self_check", trace(f"{opening} 1+1=2. So I get 2.")) == []
    assert found("self_check", trace("So 1+1=3. Hmm, that is wrong. 1+1=2.")) == ["Hmm"]
    assert found("self_check", trace("So 1+1=2. Wait, let me double check. 2-1=1.")) == ["Wait"]
    assert found("self_check_sentence", trace("So 1+1=2. Let me verify. 2-1=1.")) == ["Let me verify."]


def test_results_of_several_digits_are_all_result():
    assert found("result_digit", trace("So 7*8=56. Now 56+9=65.")) == ["56", "65"]
    assert found("operator", trace("So 7*8=56.")) == ["*", "="]


def test_prompt_and_plain_text_hold_no_concept_of_the_trace():
    """The same words outside the think part are no steps, checks or operators of it."""
    plain = cut(("<bos>", "template"), ("First, 3+4=7. Wait, I made a mistake. Tom has \\boxed{7} coins.", "text"))
    assert found("name", plain) == ["Tom"] and found("thing", plain) == ["coins"]
    rest = [name for name in CONCEPT_NAMES if name not in ("name", "thing")]
    assert {name: found(name, plain) for name in rest} == {name: [] for name in rest}


def test_names_and_things_are_whole_words():
    plain = cut(("Same Tomorrow Benny scoins applesauce Sam cups", "text"))
    assert found("name", plain) == ["Sam"] and found("thing", plain) == ["cups"]


def test_a_cut_document_ends_where_it_ends():
    table, words = cut(("<think>", "template"), ("\n", "template"), size=1)
    assert found("think_opening", (table, words)) == ["\n"]
    cut_short = cut(("<think>", "template"), ("\n", "template"), ("Okay. First, 3+", "think"))
    assert found("operator", cut_short) == [] and found("step_word", cut_short) == ["First"]


def test_documents_that_are_not_asked_for_stay_unmarked():
    table, words = trace()
    assert not mark_concepts(table, words, np.zeros(0, dtype=np.int64)).any()


def test_ids_without_a_string_are_refused():
    table, words = trace()
    with pytest.raises(ArtefactError, match="not the tokenizer"):
        mark_concepts(table, words[:-1], np.array([0]))


def test_every_concept_has_a_line_of_definition():
    assert all(concept.definition and "\n" not in concept.definition for concept in CONCEPTS)
    assert len(set(CONCEPT_NAMES)) == len(CONCEPTS) <= 16  # so many fit into one sort key


# ------------------------------------------------------------------------------------------------ the generated corpus


@pytest.fixture(scope="module")
def generated(small_tokenizer, text_settings, part_split):
    import pandas as pd

    rows = pd.DataFrame(openr1_rows(40, 2, {1: 1.0, 2: 1.0, 3: 1.0}, 0.2, 0.0, seed=0))
    chooser = random.Random(0)
    plain = pd.DataFrame({"text": [make(chooser) for make in (general, facts, copying) for _ in range(5)]})
    documents = pd.concat([explode(rows, "ours", PREFIX, part_split), plain_documents(plain, "ours", part_split)])
    table = tokenize_documents(documents.astype(object), small_tokenizer, text_settings(max_tokens=400, context=400))
    strings = [small_tokenizer.decode([number]) for number in range(len(small_tokenizer))]
    return documents, table, strings


@pytest.fixture(scope="module")
def part_split():
    from reasondiff.config import Split

    shares = {"train": 0.2, "calibrate": 0.2, "choose": 0.2, "score": 0.2, "report": 0.2}
    return Split.model_validate({"seed": 0, "shares": shares, "held_out_family": None})


def test_the_generated_corpus_has_every_concept_as_often_as_its_text_says(generated):
    documents, table, strings = generated
    marks = dict(zip(CONCEPT_NAMES, mark_concepts(table, strings, np.arange(len(table))), strict=True))
    assert all(row.any() for row in marks.values())
    traces = documents[documents["think"].notna()]
    assert len(table) == len(documents)
    # each of these is one token of this tokenizer, so tokens are counted as the text counts them
    assert marks["think_marker"].sum() == 2 * len(traces)
    assert marks["think_opening"].sum() == marks["answer_opening"].sum() == 3 * len(traces)
    equations = traces["think"].str.count(r"\d[-+*/]\d+=\d")
    assert marks["operator"].sum() == 2 * equations.sum()
    boxes = traces["answer"].str.extract(r"boxed\{(\d+)\}")[0]
    assert marks["answer_digit"].sum() == boxes.str.len().sum()
    # what is inside a phase stays there
    think, answer = PHASES.index("think"), PHASES.index("answer")
    for name in ("step_word", "self_check", "self_check_sentence", "confirmation", "operator", "result_digit"):
        assert set(table.phases[marks[name]]) == {think}
    assert set(table.phases[marks["answer_digit"]]) == {answer}
