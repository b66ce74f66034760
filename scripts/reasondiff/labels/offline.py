"""Which pattern of tokens tells the tokens a latent fires on from others?

The provider that costs nothing and knows nothing: it looks for a pattern (`labels.patterns`) in the examples and calls
it a label. It interprets nothing, and how well the pattern predicts held-out windows is its *pattern fit*.

How: conditions that hold on firing tokens are ranked by their log-odds against tokens that do not fire (silent tokens
of the same windows, and the windows of other latents), with the pooled frequencies as the prior (Monroe, Colaresi and
Quinn 2008, Political Analysis 16, 372-403, §3.3). The first ones, and pairs of them, are then compared by what a label
is asked for: how much more often they hold in windows with a firing than in others (detection), and on firing tokens
than on silent ones beside them (fuzzing).
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from reasondiff.labels.patterns import Condition, Pattern, asks_for_phase, conditions_at, fires_at, in_words, written
from reasondiff.labels.questions import Example, Failure, Label, Passage, Question, Subject

BACKGROUND_WINDOWS = 256  # of other latents
PRIOR_TOKENS = 10.0  # weight of the pooled frequencies
SHORTLIST, PAIRED = 24, 16  # conditions that are compared, and of which pairs are formed
PAIR_MUST_ADD = 0.02  # to the quality, so that of two patterns that fit alike the simpler one is the label
RANDOM_STATE = 0  # of the draw of background windows

# of patterns that fit alike: what was seen before what it was an instance of
_ORDER = {"token": 0, "word": 1, "class": 2, "near": 3, "phase": 4}


@dataclass(frozen=True)
class Fit:
    """How a pattern fares on the examples shown; shares from 0 to 1."""

    pattern: Pattern
    log_odds: float
    """z-score of the log-odds of its first condition."""
    marked: int
    """Firing tokens on which it holds."""
    silent: int
    """Silent tokens of the same windows on which it holds."""
    windows: int
    """Windows of the latent in which it holds anywhere."""
    others: int
    """Windows of other latents in which it holds anywhere."""
    quality: float
    """Mean of the excess (hits minus false alarms, from -1 to 1) in detection and in fuzzing."""


class OfflineProvider:
    """Labels are patterns; judging a label is looking for its pattern. `background`: windows of any latents, to be
    compared with beside those of the other subjects that are labelled in the same call."""

    measure = "pattern fit"

    def __init__(self, background: Sequence[Example] | None = None):
        self.background = tuple(background or ())

    def usage(self, subjects: Sequence[Subject]) -> dict[str, int | float]:
        """Nothing."""
        return {"requests": 0, "input_tokens": 0, "output_tokens": 0, "dollars": 0.0}

    def label(self, subjects: Sequence[Subject]) -> list[Label | Failure]:
        """The best pattern of each subject; a failure where no token fires or nothing sets firing tokens apart."""
        windows = [(-1, example) for example in self.background]
        windows += [(owner, example) for owner, subject in enumerate(subjects) for example in subject.examples]
        if len(windows) > BACKGROUND_WINDOWS:
            windows = random.Random(RANDOM_STATE).sample(windows, BACKGROUND_WINDOWS)
        others = _Windows(windows)
        return [_label(subject, others, owner) for owner, subject in enumerate(subjects)]

    def judge(self, questions: Sequence[Question]) -> list[list[bool | None]]:
        """Detection: yes if the pattern holds anywhere in the passage. Fuzzing: yes if it holds on at least half of
        the marked tokens. None where it asks for the phase and the passage does not say it.

        Raises:
            ValueError: a label has no pattern, being another provider's; or no token is marked in fuzzing.
        """
        return [[_judge(question, passage) for passage in question.passages] for question in questions]


def _judge(question: Question, passage: Passage) -> bool | None:
    if question.label.pattern is None:
        raise ValueError(
            f"the label {question.label.text!r} has no pattern: the offline provider judges its own labels only. "
            "Score labels with the provider that wrote them."
        )
    phase = passage.phase
    if not phase and asks_for_phase(question.label.pattern):
        return None
    asked = range(len(passage.tokens)) if question.task == "detection" else np.flatnonzero(passage.marked).tolist()
    matches = fires_at(question.label.pattern, passage.tokens, asked, phase)
    if question.task == "detection":
        return any(matches)
    if not matches:
        raise ValueError("expected marked tokens in a passage of fuzzing, came none")
    return 2 * sum(matches) >= len(matches)


# ------------------------------------------------------------------------------------------------ background


class _Windows:
    """Windows of several owners, with the places where each condition holds."""

    def __init__(self, windows: Iterable[tuple[int, Example]]):
        places: dict[Condition, list[int]] = defaultdict(list)
        owners, window_of = [], []
        for number, (owner, example) in enumerate(windows):
            owners.append(owner)
            for i in range(len(example.tokens)):
                for condition in conditions_at(example.tokens, i, example.phase):
                    places[condition].append(len(window_of))
                window_of.append(number)
        self.owners = np.array(owners, dtype=np.int64)
        self.window_of = np.array(window_of, dtype=np.int64)
        self.places = {condition: np.array(found, dtype=np.int64) for condition, found in places.items()}

    def where(self, pattern: Pattern, not_of: int) -> np.ndarray:
        """Positions where the pattern holds, in windows of other owners."""
        found = [self.places.get(condition) for condition in pattern]
        if any(places is None for places in found):
            return np.empty(0, dtype=np.int64)
        both = found[0] if len(found) == 1 else np.intersect1d(*found, assume_unique=True)
        return both[self.owners[self.window_of[both]] != not_of]

    def tokens(self, not_of: int) -> int:
        return int((self.owners[self.window_of] != not_of).sum())

    def windows(self, not_of: int) -> int:
        return int((self.owners != not_of).sum())


# ------------------------------------------------------------------------------------------------ search


class _Search:
    """Patterns of one subject against its own silent tokens and the windows of others."""

    def __init__(self, subject: Subject, others: _Windows, owner: int):
        self.subject, self.others, self.owner = subject, others, owner
        self.holding: dict[Condition, set[tuple[int, int]]] = defaultdict(set)
        self.marked: set[tuple[int, int]] = set()
        self.tokens = 0
        for number, example in enumerate(subject.examples):
            for i, activation in enumerate(example.activations):
                self.tokens += 1
                if activation > 0:
                    self.marked.add((number, i))
                for condition in conditions_at(example.tokens, i, example.phase):
                    self.holding[condition].add((number, i))
        self.silent = self.tokens - len(self.marked)
        self.other_tokens, self.other_windows = others.tokens(owner), others.windows(owner)

    def best(self) -> Fit | None:
        """The pattern of the highest quality; None if no condition is more frequent on firing tokens than elsewhere."""
        scores = {condition: self.log_odds(condition) for condition in self.candidates()}
        ranked = sorted((c for c in scores if scores[c] > 0), key=lambda c: (-scores[c], _rank(c)))
        patterns: list[Pattern] = [(condition,) for condition in ranked[:SHORTLIST]]
        patterns += [pair for pair in itertools.combinations(ranked[:PAIRED], 2) if _says_more(*pair)]
        fits = [self.fit(pattern, scores[pattern[0]]) for pattern in patterns]
        return max(fits, key=_preference, default=None)

    def candidates(self) -> list[Condition]:
        """Conditions that hold on a tenth of the firing tokens, and on two if there are so many."""
        least = max(min(2, len(self.marked)), len(self.marked) / 10)
        return [condition for condition, where in self.holding.items() if len(where & self.marked) >= least]

    def log_odds(self, condition: Condition) -> float:
        """z-score of the log-odds ratio between firing tokens and all others; 0 for what holds everywhere."""
        n_firing, n_rest = len(self.marked), self.silent + self.other_tokens
        own = self.holding[condition]
        firing = len(own & self.marked)
        rest = len(own) - firing + len(self.others.where((condition,), self.owner))
        pooled = (firing + rest) / (n_firing + n_rest)
        if pooled == 1:
            return 0.0
        prior = PRIOR_TOKENS * pooled
        absent = PRIOR_TOKENS - prior
        first = math.log((firing + prior) / (n_firing - firing + absent))
        second = math.log((rest + prior) / (n_rest - rest + absent))
        return (first - second) / math.sqrt(1 / (firing + prior) + 1 / (rest + prior))

    def fit(self, pattern: Pattern, log_odds: float) -> Fit:
        own = set.intersection(*(self.holding[condition] for condition in pattern))
        marked, windows = len(own & self.marked), len({number for number, _ in own})
        elsewhere = self.others.where(pattern, self.owner)
        others = len(np.unique(self.others.window_of[elsewhere]))
        silent = len(own) - marked
        detection = windows / len(self.subject.examples) - others / max(1, self.other_windows)
        fuzzing = marked / len(self.marked) - silent / max(1, self.silent)
        return Fit(pattern, log_odds, marked, silent, windows, others, (detection + fuzzing) / 2)


def _rank(condition: Condition) -> tuple[int, int, str]:
    return (_ORDER[condition.what], -condition.offset, condition.value)


def _preference(fit: Fit) -> tuple:
    quality = round(fit.quality - PAIR_MUST_ADD * (len(fit.pattern) - 1), 9)
    what, back, _ = _rank(fit.pattern[0])
    return quality, -what, -back, fit.log_odds


def _says_more(first: Condition, second: Condition) -> bool:
    """False where one of the two follows from the other, or they say it of the same token."""
    surface = ("token", "word", "class")
    if first.what in surface and second.what in surface:
        return first.offset != second.offset
    return first.what != second.what or first.what == "near"


def _label(subject: Subject, others: _Windows, owner: int) -> Label | Failure:
    search = _Search(subject, others, owner)
    if not search.marked:
        return Failure("no token of the examples fires")
    best = search.best()
    if best is None:
        return Failure("no pattern is more frequent on the tokens it fires on than on others")
    explanation = (
        f"A pattern of tokens, not an interpretation: it holds on {best.marked} of {len(search.marked)} firing tokens, "
        f"on {best.silent} of {search.silent} silent ones in the same windows, and in {best.others} of "
        f"{search.other_windows} windows of other latents (log-odds z = {best.log_odds:.1f})."
    )
    return Label(in_words(best.pattern), explanation, written(best.pattern))
