"""How well does each of many candidates tell some concepts, one candidate alone and by its own responses?

A candidate is anything with one response per token: a latent, a neuron, a direction, a probe. It tells a concept by
firing: its response is above a threshold. F1 is that of the best threshold, AUROC needs none. Tokens on which a
candidate is silent are not stored; they rank below all others and tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, UInt16, UInt32, UInt64

from reasondiff.statistics import resample_weights

MOST_CANDIDATES, MOST_CONCEPTS = 2**16, 16  # with a response of 32 bits they fill the 64 bits of a sort key


@dataclass(frozen=True)
class Responses:
    """Responses of some candidates to `n_tokens` tokens.

    `candidates`, `tokens`, `values` [entry] say which candidate responds to which token, how strongly; a token without
    an entry is silent. A silent token ranks below every entry, so entries must be positive where there are any.
    """

    candidates: Int[np.ndarray, " entry"]
    tokens: Int[np.ndarray, " entry"]
    values: Float[np.ndarray, " entry"]
    n_candidates: int
    n_tokens: int


@dataclass(frozen=True)
class Figures:
    """How well each candidate tells each concept on the tokens where it was looked for.

    `f1` (0 to 1) at `threshold` (it fires where its response is greater); `auroc`: the probability that a token of the
    concept gets the larger response, ties counting half. NaN for a concept of no token or of all.
    """

    f1: Float[np.ndarray, "candidate concept"]
    threshold: Float[np.ndarray, "candidate concept"]
    auroc: Float[np.ndarray, "candidate concept"]


# ----------------------------------------------------------------------------------------------- all candidates


@dataclass(frozen=True)
class _Ranking:
    """Entries as sorted keys: 16 bits of candidate, 32 of falling response, 16 of concepts.

    `marked` [marked]: the entries of tokens of any concept, and their `bits`; `ties` [entry]: whether candidate
    and response are those of the entry before or after; `breaks`: the last entry of each run of equal ones, -1 before
    them; `begins` [candidate + 1]: where the entries of each candidate begin.
    """

    keys: UInt64[np.ndarray, " entry"]
    marked: Int[np.ndarray, " marked"]
    bits: UInt16[np.ndarray, " marked"]
    ties: Bool[np.ndarray, " entry"]
    breaks: Int[np.ndarray, " run_and_one"]
    begins: Int[np.ndarray, " candidate_and_end"]

    def candidates(self, entries: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        return (self.keys[entries] >> np.uint64(48)).astype(np.int64)

    def values(self, entries: Int[np.ndarray, " some"]) -> Float[np.ndarray, " some"]:
        return _rising((self.keys[entries] >> np.uint64(16)).astype(np.uint32)).astype(np.float64)

    def ends(self, entries: Int[np.ndarray, " some"]) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
        """First and last entry of the run of equal responses that each of some entries is in."""
        first, last = entries.copy(), entries.copy()
        tied = self.ties[entries]  # few, as a rule
        run = np.searchsorted(self.breaks, entries[tied])
        first[tied], last[tied] = self.breaks[run - 1] + 1, self.breaks[run]
        return first, last


def figures_of(responses: Responses, marks: Bool[np.ndarray, "concept token"]) -> Figures:
    """F1 at the best threshold, and AUROC, of every candidate for every concept.

    As if, for each candidate and concept, the tokens were sorted by response and each cut between two different
    responses tried; of equally good cuts the highest is kept. All candidates are sorted at once, with the concepts of a
    token carried along as bits of the key, and only tokens of a concept are looked at: at the best cut the last token
    let in is one of them.

    Raises:
        ValueError: a response is not finite, or there are more candidates or concepts than a key holds.
    """
    ranking = _rank(responses, marks)
    found = [_concept_figures(ranking, responses, concept, int(row.sum())) for concept, row in enumerate(marks)]
    table = np.array(found).reshape(len(marks), 3, responses.n_candidates)
    return Figures(*table.transpose(1, 2, 0))


def _rank(responses: Responses, marks: Bool[np.ndarray, "concept token"]) -> _Ranking:
    if len(marks) > MOST_CONCEPTS or responses.n_candidates > MOST_CANDIDATES:
        raise ValueError(
            f"{responses.n_candidates} candidates and {len(marks)} concepts came; at most {MOST_CANDIDATES} and "
            f"{MOST_CONCEPTS} are ranked at once: give them in pieces"
        )
    if not np.isfinite(responses.values).all():
        raise ValueError("a response is not finite; use dtype: float32, or check the models and dictionaries")
    weights = (1 << np.arange(len(marks), dtype=np.uint64))[:, None]
    bits = (marks * weights).sum(0, dtype=np.uint64)  # (token,)
    keys = responses.candidates.astype(np.uint64) << np.uint64(48)
    keys |= _falling(responses.values).astype(np.uint64) << np.uint64(16)
    keys |= bits[responses.tokens]
    begins = np.cumsum([0, *np.bincount(responses.candidates, minlength=responses.n_candidates)])
    if (responses.candidates[1:] >= responses.candidates[:-1]).all():  # one by one takes less time than all together
        for first, end in pairwise(begins.tolist()):
            keys[first:end].sort()
    else:
        keys.sort()
    equal = np.zeros(len(keys) + 1, dtype=bool)  # candidate and response to those of the entry before
    equal[1:-1] = (keys[1:] ^ keys[:-1]) < np.uint64(2**16)
    breaks = np.concatenate([[-1], np.flatnonzero(~equal[1:-1]), [len(keys) - 1]])
    marked = np.flatnonzero(keys & np.uint64(2**16 - 1))
    return _Ranking(keys, marked, keys[marked].astype(np.uint16), equal[1:] | equal[:-1], breaks, begins)


def _falling(values: Float[np.ndarray, " entry"]) -> UInt32[np.ndarray, " entry"]:
    """32 bits that sort the other way round than the float32 they come from."""
    bits = (np.asarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    # as they stand, positive floats sort like integers, and negative ones the other way round
    return np.where(bits >> 31, bits, ~bits & np.uint32(2**31 - 1))


def _rising(bits: UInt32[np.ndarray, " entry"]) -> Float[np.ndarray, " entry"]:
    """The float32 that `_falling` made these 32 bits of."""
    return np.where(bits >> 31, bits, ~bits & np.uint32(2**31 - 1)).view(np.float32)


def _concept_figures(
    ranking: _Ranking, responses: Responses, concept: int, positives: int
) -> tuple[Float[np.ndarray, " candidate"], Float[np.ndarray, " candidate"], Float[np.ndarray, " candidate"]]:
    """(F1, threshold, AUROC) of each candidate for one concept that `positives` tokens belong to."""
    n, tokens, begins = responses.n_candidates, responses.n_tokens, ranking.begins
    if positives in (0, tokens):
        return tuple(np.full(n, np.nan) for _ in range(3))
    hits = ranking.marked[(ranking.bits >> concept) & 1 == 1]  # entries of tokens of the concept
    of = ranking.candidates(hits)
    starts = np.searchsorted(of, np.arange(n + 1))
    first, last = ranking.ends(hits)
    true = np.arange(len(hits)) - starts[of] + 1
    fired = last + 1 - begins[of]  # with all that tie with it
    # within a run of ties `true` is too small for all but the last, which so has the largest F1 of them
    f1, best = _largest(2 * true / (fired + positives), of, n)
    threshold = np.full(n, np.inf)
    threshold[f1 > 0] = _below(ranking, last[best[f1 > 0]], tokens)

    silent = tokens - np.diff(begins)
    middle = (first + last) / 2 - begins[of]
    ranks = np.bincount(of, weights=tokens - middle, minlength=n)  # from 1 for the smallest, ties at their mean
    ranks = ranks + (positives - np.diff(starts)) * (silent + 1) / 2
    auroc = (ranks - positives * (positives + 1) / 2) / (positives * (tokens - positives))
    return f1, threshold, auroc


def _largest(
    values: Float[np.ndarray, " hit"], of: Int[np.ndarray, " hit"], n: int
) -> tuple[Float[np.ndarray, " candidate"], Int[np.ndarray, " candidate"]]:
    """(largest value of each candidate, the first hit that has it); 0 and hit 0 for a candidate without a hit."""
    largest, place = np.zeros(n), np.zeros(n, dtype=np.int64)
    if len(values):
        present, begins = np.unique(of, return_index=True)
        largest[present] = np.maximum.reduceat(values, begins)
        reached = np.flatnonzero(values == largest[of])
        _, firsts = np.unique(of[reached], return_index=True)
        place[present] = reached[firsts]
    return largest, place


def _below(ranking: _Ranking, entries: Int[np.ndarray, " some"], tokens: int) -> Float[np.ndarray, " some"]:
    """The threshold that lets a candidate's entries up to this one in: halfway to the next lower response. Where only
    silent tokens are lower, 0; where nothing is, just below the lowest."""
    own = ranking.candidates(entries)
    values = ranking.values(entries)
    following = ranking.values(np.minimum(entries + 1, len(ranking.keys) - 1))
    has_silent = np.diff(ranking.begins)[own] < tokens
    lowest = np.where(has_silent, 0.0, np.nextafter(values, -np.inf))
    return np.where(entries + 1 < ranking.begins[own + 1], (values + following) / 2, lowest)


# ----------------------------------------------------------------------------------------------- one, with an interval


@dataclass(frozen=True)
class Report:
    """F1 at a given threshold and AUROC of one candidate for one concept, with 95 % intervals over problems."""

    f1: float
    f1_low: float
    f1_high: float
    auroc: float
    auroc_low: float
    auroc_high: float


class Judge:
    """Says of one candidate at a time what it is worth on the tokens of a part.

    Resampled are problems, in the same draws for all candidates. `problem` [token] counts them from 0.
    """

    def __init__(
        self, marks: Bool[np.ndarray, "concept token"], problem: Int[np.ndarray, " token"], resamples: int, seed: int
    ):
        self.marks, self.problem = marks, problem
        self.n = int(problem.max(initial=-1)) + 1
        self.weights = resample_weights(self.n, resamples, seed)
        self.positives = [self._per_problem(problem[mark]) for mark in marks]
        self.negatives = [self._per_problem(problem[~mark]) for mark in marks]

    def _per_problem(
        self, problems: Int[np.ndarray, " some"], values: Float[np.ndarray, " some"] | None = None
    ) -> Float[np.ndarray, " problem"]:
        return np.bincount(problems, weights=values, minlength=self.n).astype(np.float64)

    def report(
        self, concept: int, tokens: Int[np.ndarray, " entry"], values: Float[np.ndarray, " entry"], threshold: float
    ) -> Report:
        """What a candidate with these entries is worth for a concept.

        The AUROC of a resample is that of the whole plus the first-order effect of the drawn problems: structural
        components, summed by cluster (Obuchowski 1997, Biometrics 53, 567-578), so that no resample is sorted anew.
        """
        mark, positives, negatives = self.marks[concept], self.positives[concept], self.negatives[concept]
        firing = tokens[values.astype(np.float64) > threshold]
        fired, true = self._per_problem(self.problem[firing]), self._per_problem(self.problem[firing[mark[firing]]])
        f1 = 2 * true.sum() / (fired.sum() + positives.sum())
        drawn_positives, drawn_negatives = self.weights @ positives, self.weights @ negatives
        drawn_f1 = _shares(self.weights @ (2 * true), self.weights @ fired + drawn_positives)

        won = self._per_problem(self.problem, _components(tokens, values, mark))
        auroc = won.sum() / 2 / (positives.sum() * negatives.sum())
        surplus = won - auroc * (positives * negatives.sum() + negatives * positives.sum())
        drawn_auroc = auroc + _shares(self.weights @ surplus, drawn_positives * drawn_negatives)
        return Report(f1, *_interval(drawn_f1), auroc, *_interval(drawn_auroc.clip(0, 1)))


def _components(
    tokens: Int[np.ndarray, " entry"], values: Float[np.ndarray, " entry"], mark: Bool[np.ndarray, " token"]
) -> Float[np.ndarray, " token"]:
    """Of a token of the concept, how many others have a smaller response; of another token, how many of the concept
    have a larger one. Ties count half. Both kinds sum to the same: the pairs that are won."""
    levels, level = np.unique(values, return_inverse=True)
    of_token = np.zeros(len(mark), dtype=np.int64)  # 0: silent
    of_token[tokens] = level + 1
    hits = np.bincount(of_token[mark], minlength=len(levels) + 1)
    others = np.bincount(of_token[~mark], minlength=len(levels) + 1)
    smaller = np.cumsum(others) - others / 2
    larger = hits.sum() - np.cumsum(hits) + hits / 2
    return np.where(mark, smaller[of_token], larger[of_token])


def _shares(part: Float[np.ndarray, " resample"], whole: Float[np.ndarray, " resample"]) -> np.ndarray:
    """Part by whole; NaN in resamples without a token of the concept."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _interval(drawn: Float[np.ndarray, " resample"]) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    return tuple(np.percentile(known, [2.5, 97.5]).tolist()) if len(known) else (float("nan"), float("nan"))
