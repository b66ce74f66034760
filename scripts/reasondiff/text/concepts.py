"""Which tokens of generated documents belong to which concept?

The text is put together again from the strings of its tokens; what is found in it is mapped back to tokens. So a
concept is a matter of the text and not of how a tokenizer cuts it. A token belongs to a concept if it shares a
character with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from reasondiff.store import ArtefactError
from reasondiff.text.preparation import THINK_CLOSE, THINK_OPEN
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import TokenTable
from reasondiff.text.words import NAMES, THINGS

OPENING_TOKENS = 3

Span = tuple[int, int]
"""First character and end, or first token and end."""


@dataclass(frozen=True)
class Passage:
    """A document as text.

    `text` holds the strings of its tokens, of which token i begins at character `begins[i]` and ends at
    `begins[i + 1]`; `phases` maps each phase to the characters of its runs of tokens.
    """

    text: str
    begins: Int[np.ndarray, " token_and_end"]
    phases: Mapping[str, list[Span]]


@dataclass(frozen=True)
class Concept:
    """What is known of some tokens: a name, a line that says which tokens, and how their characters are found."""

    name: str
    definition: str
    find: Callable[[Passage], Iterator[Span]]


# ----------------------------------------------------------------------------------------------- how they are found


def _matches(pattern: str, phase: str | None = None, group: int | str = 0) -> Callable[[Passage], Iterator[Span]]:
    """Finds a group of each match of `pattern`, within the runs of one phase or anywhere."""
    expression = re.compile(pattern)

    def find(passage: Passage) -> Iterator[Span]:
        for first, end in [(0, len(passage.text))] if phase is None else passage.phases.get(phase, []):
            for match in expression.finditer(passage.text, first, end):
                yield match.span(group)

    return find


def _after(marker: str) -> Callable[[Passage], Iterator[Span]]:
    """Finds the first tokens after each `marker`."""

    def find(passage: Passage) -> Iterator[Span]:
        for match in re.finditer(re.escape(marker), passage.text):
            first = int(np.searchsorted(passage.begins, match.end()))
            last = min(first + OPENING_TOKENS, len(passage.begins) - 1)
            yield int(passage.begins[first]), int(passage.begins[last])

    return find


def _operators(passage: Passage) -> Iterator[Span]:
    for first, end in _EQUATIONS(passage):
        for match in re.finditer(r"[-+*/=]", passage.text[first:end]):
            yield first + match.start(), first + match.end()


def _any_of(words: Sequence[str]) -> str:
    return rf"\b(?:{'|'.join(words)})\b"


# A sentence begins after ". " or with its phase (`\n` and the opening tag lie outside it).
_OPENS = r"(?:(?<=\. )|(?<=<think>)|(?<=<think>\n))"
_EQUATION = r"\d+[-+*/]\d+=(?P<result>\d+)"
_EQUATIONS = _matches(_EQUATION, "think")
_CONNECTIVES = r"First|Then|Next|After that|Step \d|So|Now|And then|Therefore"
_CHECKS = r"Wait|Let me(?= double check| verify)|Hmm(?=, that is wrong)"
_CONFIRMATIONS = r"Yes, this works\.|Good, that matches\.|Yes, that is correct\."

CONCEPTS = (
    Concept(
        "think_marker",
        f"the markers {THINK_OPEN} and {THINK_CLOSE} themselves",
        _matches(f"{re.escape(THINK_OPEN)}|{re.escape(THINK_CLOSE)}"),
    ),
    Concept("think_opening", f"the first {OPENING_TOKENS} tokens after {THINK_OPEN}", _after(THINK_OPEN)),
    Concept("answer_opening", f"the first {OPENING_TOKENS} tokens after {THINK_CLOSE}", _after(THINK_CLOSE)),
    Concept(
        "step_word",
        "the connective that opens a sentence of the think part: First, Then, Next, After that, Step n, So, Now, "
        "And then, Therefore",
        _matches(rf"{_OPENS}(?:{_CONNECTIVES})\b", "think"),
    ),
    Concept(
        "self_check",
        "the words that open a sentence of doubt in the think part: Wait, Let me (double check, verify), Hmm (that is "
        "wrong)",
        _matches(rf"{_OPENS}(?:{_CHECKS})\b", "think"),
    ),
    Concept(
        "self_check_sentence",
        "the whole sentence that such words open",
        _matches(rf"{_OPENS}(?:{_CHECKS})\b[^.]*\.?", "think"),
    ),
    Concept(
        "confirmation",
        "the sentence that ends a check in the think part: Yes, this works / Good, that matches / Yes, that is correct",
        _matches(rf"{_OPENS}(?:{_CONFIRMATIONS})", "think"),
    ),
    Concept("operator", "+ - * / = in an equation of the think part", _operators),
    Concept(
        "result_digit",
        "digits after the = of an equation of the think part",
        _matches(_EQUATION, "think", "result"),
    ),
    Concept(
        "answer_digit",
        "digits in the box of the answer part",
        _matches(r"\\boxed\{(?P<number>\d+)", "answer", "number"),
    ),
    Concept("name", "the name of a person, in any phase", _matches(_any_of(NAMES))),
    Concept("thing", "the word for things that are counted (apples, coins), in any phase", _matches(_any_of(THINGS))),
)
"""All concepts, in the order of the rows of `mark_concepts`."""

CONCEPT_NAMES = tuple(concept.name for concept in CONCEPTS)


# ----------------------------------------------------------------------------------------------- on a token table


def mark_concepts(
    table: TokenTable, strings: Sequence[str], documents: Int[np.ndarray, " document"]
) -> Bool[np.ndarray, "concept token"]:
    """For each of `CONCEPTS` the tokens of the table that belong to it, masked ones included; False outside
    `documents`. `strings`: what each id stands for.

    Raises:
        ArtefactError: the table holds an id without a string.
    """
    if len(documents) and (largest := int(table.ids.max())) >= len(strings):
        raise ArtefactError(
            f"the token table holds id {largest}, but the tokenizer has ids up to {len(strings) - 1} only: it is not "
            "the tokenizer that the text was cut with"
        )
    marks = np.zeros((len(CONCEPTS), len(table.ids)), dtype=bool)
    for document in documents.tolist():
        start, end = table.starts[document], table.starts[document + 1]
        passage = read_passage(table.ids[start:end], table.phases[start:end], strings)
        for row, concept in enumerate(CONCEPTS):
            for first, last in tokens_of(passage, concept.find(passage)):
                marks[row, start + first : start + last] = True
    return marks


def read_passage(
    ids: Int[np.ndarray, " token"], phases: UInt8[np.ndarray, " token"], strings: Sequence[str]
) -> Passage:
    """The text of a document, where its tokens begin, and where its phases are."""
    words = [strings[number] for number in ids.tolist()]
    begins = np.cumsum([0, *map(len, words)])
    changes = np.flatnonzero(np.diff(phases)) + 1
    runs: dict[str, list[Span]] = {}
    for first, end in zip([0, *changes.tolist()], [*changes.tolist(), len(ids)], strict=True):
        if end > first:
            runs.setdefault(PHASES[phases[first]], []).append((int(begins[first]), int(begins[end])))
    return Passage("".join(words), begins, runs)


def tokens_of(passage: Passage, spans: Iterator[Span]) -> Iterator[Span]:
    """The tokens that share a character with each span of characters."""
    for first, end in spans:
        if first < end:
            yield (
                int(np.searchsorted(passage.begins, first, side="right")) - 1,
                int(np.searchsorted(passage.begins, end)),
            )
