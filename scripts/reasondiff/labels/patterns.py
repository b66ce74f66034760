"""What can be said of a token's place in a text by looking at tokens alone?

A *condition* is a plain fact about a position: which token stands there or before it, of which class it is, which
token came a little earlier, in which phase the window lies. A *pattern* is a conjunction of at most two, as plain JSON:
`{"conditions": [{"what": "word", "offset": 0, "value": "wait"}]}`. It looks back only: what a latent of a causal model
responds to cannot lie after the token.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

OFFSETS = (0, -1, -2)
NEAR = 5  # tokens before a position in which `near` looks
SHOWN = 24  # characters of a token in words

_OPERATORS = set("+-*/=<>^%×÷·±≤≥≠≈√")
_CLASSES = (
    ("marker", re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")),
    ("digit", re.compile(r"\d+")),
    ("capitalised", re.compile(r"[^\W\d_a-z]\w*")),
    ("lower-case", re.compile(r"[^\W\d_]\w*")),
    ("punctuation", re.compile(r"[^\w\s]+")),
)


class Condition(NamedTuple):
    """`what`: token (exact), word (case and spaces aside), class, near (the word among the `NEAR` tokens before) or
    phase; `offset`: where, 0 being the token itself; `value`: which."""

    what: str
    offset: int
    value: str


Pattern = tuple[Condition, ...]


@functools.lru_cache(maxsize=2**16)
def word_of(token: str) -> str:
    """The token without surrounding spaces and case; a token of spaces stays as it is."""
    return token.strip().casefold() or token


@functools.lru_cache(maxsize=2**16)
def class_of(token: str) -> str:
    """marker, digit, operator, punctuation, capitalised, lower-case, line-break, space or mixed."""
    bare = token.strip()
    if not bare:
        return "line-break" if "\n" in token or "\r" in token else "space"
    if set(bare) <= _OPERATORS:
        return "operator"
    return next((name for name, form in _CLASSES if form.fullmatch(bare)), "mixed")


_FORMS = {"token": str, "word": word_of, "class": class_of}


def conditions_at(tokens: Sequence[str], i: int, phase: str) -> Iterator[Condition]:
    """Every condition that holds at position `i`."""
    for offset in OFFSETS[: i + 1]:
        token = tokens[i + offset]
        yield Condition("token", offset, token)
        yield Condition("word", offset, word_of(token))
        yield Condition("class", offset, class_of(token))
    for word in {word_of(token) for token in tokens[max(0, i - NEAR) : i]}:
        yield Condition("near", 0, word)
    if phase:
        yield Condition("phase", 0, phase)


def holds(condition: Condition, tokens: Sequence[str], i: int, phase: str) -> bool:
    """Whether a condition holds at position `i` of a window that lies in `phase`."""
    what, offset, value = condition
    if what == "phase":
        return phase == value
    if what == "near":
        return any(word_of(token) == value for token in tokens[max(0, i - NEAR) : i])
    return i + offset >= 0 and _FORMS[what](tokens[i + offset]) == value


def fires(pattern: Mapping[str, Any], tokens: Sequence[str], i: int, phase: str = "") -> bool:
    """Whether the pattern holds at position `i`."""
    return fires_at(pattern, tokens, [i], phase)[0]


def fires_at(pattern: Mapping[str, Any], tokens: Sequence[str], where: Iterable[int], phase: str = "") -> list[bool]:
    """Whether the pattern holds at each of some positions."""
    conditions = read_pattern(pattern)
    return [all(holds(condition, tokens, i, phase) for condition in conditions) for i in where]


def asks_for_phase(pattern: Mapping[str, Any]) -> bool:
    """Whether it cannot be told without knowing the phase."""
    return any(condition.what == "phase" for condition in read_pattern(pattern))


# ------------------------------------------------------------------------------------------------ as JSON


def written(pattern: Pattern) -> dict[str, Any]:
    """The pattern as plain JSON."""
    return {"conditions": [condition._asdict() for condition in pattern]}


def read_pattern(pattern: Mapping[str, Any]) -> Pattern:
    """The conditions of a pattern from JSON.

    Raises:
        ValueError: it is no pattern of this module.
    """
    try:
        found = tuple(Condition(**condition) for condition in pattern["conditions"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected a pattern with a list of conditions, came {pattern!r}") from error
    for condition in found:
        if condition.what not in ("token", "word", "class", "near", "phase") or condition.offset not in OFFSETS:
            raise ValueError(f"expected a condition of labels.patterns, came {condition}")
    return found


# ------------------------------------------------------------------------------------------------ in words


def in_words(pattern: Pattern) -> str:
    """The pattern in 3 to 8 words. Tokens stand in quotes, spaces in them as ␣, and are cut at `SHOWN` characters."""
    heads = [condition for condition in pattern if condition.offset == 0 and condition.what in _HEADS]
    rest = [condition for condition in pattern if condition not in heads]
    words = [_HEADS[condition.what].format(_quoted(condition)) for condition in heads] or ["token"]
    words += [_tail(condition) for condition in sorted(rest, key=lambda condition: -condition.offset)]
    return " ".join(words)


_HEADS = {"token": "the token {}", "word": "the word {}", "class": "any {} token"}


def _tail(condition: Condition) -> str:
    value = _quoted(condition)
    if condition.what == "phase":
        return f"in {value}"
    if condition.what == "near":
        return f"soon after {value}"
    return f"right after {value}" if condition.offset == -1 else f"two tokens after {value}"


def _quoted(condition: Condition) -> str:
    return condition.value if condition.what in ("class", "phase") else f'"{visible(condition.value)}"'


def visible(token: str) -> str:
    """A token on one line without spaces, so that it reads as one word."""
    shown = token if len(token) <= SHOWN else token[: SHOWN - 1] + "…"
    escaped = shown.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return re.sub(r"\s", "␣", escaped) or "(empty)"
