"""Who may tell a concept? Latents, neurons, random directions, probes: each answers with a response per token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode
from reasondiff.latents.concept_probes import LogisticProbes
from reasondiff.latents.concept_reading import ReadPart
from reasondiff.latents.concept_scores import MOST_CANDIDATES, Responses

ENTRIES_AT_ONCE = 2**19
Name = tuple[str | None, int | None]
"""(point, seed) of a dictionary."""
NO_DICTIONARY = (None, None)
Inputs = Callable[[ReadPart], Float[Tensor, "token unit"]]
TAGS = ("reasoning_only", "base_only", "shared", "other")


@dataclass(frozen=True)
class Candidates:
    """`n` candidates of one kind that one search picks from.

    `respond` gives the responses of some of them to the tokens of a part. `dictionaries` (point, seed): whose latents
    they are, or which dictionaries they are as many as; none named: they stand beside all dictionaries of the site.
    `groups` are picked from apart, by tag. `signs`: 2 where candidate n / 2 + i is candidate i with the other sign.
    `each_its_own`: candidate c is for concept c alone, and has no number. `dense`: they respond to most tokens.
    """

    kind: str
    model: str
    n: int
    respond: Callable[[ReadPart, Int[np.ndarray, " some"]], Responses]
    dictionaries: Sequence[Name] = (NO_DICTIONARY,)
    groups: Mapping[str, Int[np.ndarray, " some"]] = field(default_factory=dict)
    signs: int = 1
    each_its_own: bool = False
    dense: bool = False

    def members(self, concept: int) -> Mapping[str, Int[np.ndarray, " some"]]:
        """{tag: candidates for a concept}."""
        return {"all": np.array([concept]) if self.each_its_own else np.arange(self.n), **self.groups}

    def at_once(self, tokens: int) -> int:
        """How many candidates' responses to so many tokens are held together."""
        return max(1, ENTRIES_AT_ONCE // max(1, tokens)) if self.dense else MOST_CANDIDATES

    def pieces(self, tokens: int) -> list[Int[np.ndarray, " some"]]:
        """All candidates, in pieces of `at_once`."""
        size = self.at_once(tokens)
        return [np.arange(first, min(first + size, self.n)) for first in range(0, self.n, size)]

    def unit(self, candidate: int) -> tuple[float, float]:
        """(number, sign) of a candidate as the table says them; NaN where there is none."""
        if self.each_its_own:
            return float("nan"), float("nan")
        if self.signs == 1:
            return float(candidate), float("nan")
        return float(candidate % (self.n // 2)), 1.0 if candidate < self.n // 2 else -1.0


def latents(name: Name, n: int, model: str, tags: Sequence[str] | None = None) -> Candidates:
    """The latents of the dictionary whose code is under `name`; of each tag apart if `tags` [latent] are given."""
    groups = {} if tags is None else {tag: np.flatnonzero(np.asarray(tags) == tag) for tag in TAGS}
    return Candidates("latent", model, n, lambda part, some: of_code(part.codes[name], some), [name], groups)


def untrained_latents(key: Any, n: int, model: str) -> Candidates:
    """The latents of the dictionary on random-weight models, whose code is under `key`."""
    return Candidates("untrained dictionary", model, n, lambda part, some: of_code(part.codes[key], some))


def neurons(values: Inputs, n: int, model: str) -> Candidates:
    """Single units, each with both signs: a unit may tell a concept by being low."""

    def respond(part: ReadPart, some: Int[np.ndarray, " some"]) -> Responses:
        signs = torch.from_numpy(np.where(some < n, 1, -1)).to(torch.float32)
        return of_columns(values(part)[:, torch.from_numpy(some % n)] * signs)

    return Candidates("neuron", model, 2 * n, respond, signs=2, dense=True)


def random_directions(
    inputs: Inputs, example: ReadPart, n: int, model: str, dictionaries: Sequence[Name], seed: int
) -> Candidates:
    """ReLU of the projections of centred, normalised activations on random directions of length 1: as many as each of
    the dictionaries has latents. `example`: any part, for the number of units."""
    rows = torch.randn(n, inputs(example).shape[1], generator=torch.Generator().manual_seed(seed))
    rows = rows / rows.norm(dim=1, keepdim=True)

    def respond(part: ReadPart, some: Int[np.ndarray, " some"]) -> Responses:
        return of_columns(inputs(part) @ rows[torch.from_numpy(some)].T, positive=True)

    return Candidates("random direction", model, n, respond, dictionaries, dense=True)


def probe(probes: LogisticProbes, inputs: Inputs, model: str) -> Candidates:
    """A probe for each concept."""

    def respond(part: ReadPart, some: Int[np.ndarray, " some"]) -> Responses:
        return of_columns(probes(inputs(part))[:, torch.from_numpy(some)])

    return Candidates("probe", model, len(probes.bias), respond, each_its_own=True, dense=True)


def of_code(code: SparseCode, some: Int[np.ndarray, " some"]) -> Responses:
    """The responses of some latents."""
    place = np.full(code.n_latents, -1)
    place[some] = np.arange(len(some))
    candidates = place[code.latents.numpy()]
    own = np.flatnonzero(candidates >= 0)
    return Responses(candidates[own], code.rows.numpy()[own], code.values.numpy()[own], len(some), code.n_rows)


def of_columns(values: Float[Tensor, "token some"], positive: bool = False) -> Responses:
    """The responses in the columns of a matrix; with `positive` only those above 0, the others being silent."""
    tokens, some = values.shape
    flat = values.T.contiguous().numpy().ravel()
    kept = np.flatnonzero(flat > 0) if positive else np.arange(len(flat))
    return Responses(kept // max(1, tokens), kept % max(1, tokens), flat[kept], some, tokens)
