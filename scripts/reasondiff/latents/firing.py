"""How often does each latent fire, how strongly, in which phases, and more on correct or on incorrect traces?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.latents.strongest import Firings
from reasondiff.text.rendering import PHASE_CODE, PHASES
from reasondiff.text.tokens import TokenTable

# Edges of activation bins: 8 to a factor of ten, from 0.001 to 1000. What lies below the first and what lies above the
# last edge has a bin too. They are the same for all latents, so that histograms can be added and compared.
HISTOGRAM_EDGES = (10.0 ** (np.arange(-24, 25) / 8)).astype(np.float32)
BINS = len(HISTOGRAM_EDGES) + 1
RESPONSE = tuple(PHASE_CODE[phase] for phase in ("think", "answer"))
OUTCOMES = ("incorrect", "correct")  # by the number that stands for it in the token table


class FiringTally:
    """Sums over the unmasked tokens of a text, for every latent of a dictionary."""

    def __init__(self, latents: int, table: TokenTable, device: str):
        self.n_latents = latents
        self.phases = torch.from_numpy(table.phases).to(device)
        self.outcome = torch.from_numpy(table.correct).to(device)  # (document,): 0, 1, or -1 where it is not known
        counts = dict(dtype=torch.int64, device=device)
        self.tokens = torch.zeros(len(PHASES), **counts)
        self.fired = torch.zeros(len(PHASES), latents, **counts)
        self.histogram = torch.zeros(latents, BINS, **counts)
        self.mass = torch.zeros(latents, dtype=torch.float64, device=device)
        self.peak = torch.zeros(latents, device=device)
        self.edges = torch.from_numpy(HISTOGRAM_EDGES).to(device)
        # of responses (think and answer), by outcome:
        self.response_tokens = torch.zeros(len(OUTCOMES), **counts)
        self.response_fired = torch.zeros(len(OUTCOMES), latents, **counts)
        self.traces = torch.zeros(len(OUTCOMES), **counts)  # with an unmasked token in the response
        self.traces_fired = torch.zeros(len(OUTCOMES), latents, **counts)

    def add(self, firings: Firings, tokens: Int[Tensor, " token"], documents: Int[Tensor, " token"]) -> None:
        """Adds whole documents: their firings, and their unmasked tokens with the document of each."""
        self.tokens += torch.bincount(self.phases[tokens].long(), minlength=len(PHASES))
        latents, values = firings.latents, firings.values
        self._count(self.fired, self.phases[firings.tokens].long() * self.n_latents + latents)
        self._count(self.histogram, latents * BINS + torch.bucketize(values, self.edges, right=True))
        # unlike index_add_, the same on every run on GPU
        self.mass.index_put_((latents,), values.double(), accumulate=True)
        self.peak.scatter_reduce_(0, latents, values, "amax")
        response = self._in_response(tokens)
        for number in range(len(OUTCOMES)):
            inside = response & (self.outcome[documents] == number)
            self.response_tokens[number] += inside.sum()
            self.traces[number] += len(documents[inside].unique())
            own = firings.only(self._in_response(firings.tokens) & (self.outcome[firings.documents] == number))
            self._count(self.response_fired[number], own.latents)
            runs = own.runs()  # one for each latent and trace
            first = torch.ones_like(runs, dtype=torch.bool)
            first[1:] = runs[1:] != runs[:-1]
            self._count(self.traces_fired[number], own.latents[first])

    def _in_response(self, tokens: Int[Tensor, " token"]) -> Bool[Tensor, " token"]:
        return torch.isin(self.phases[tokens], torch.tensor(RESPONSE, dtype=torch.uint8, device=tokens.device))

    @staticmethod
    def _count(counts: Int[Tensor, "..."], where: Int[Tensor, " firing"]) -> None:
        counts.view(-1).index_add_(0, where, torch.ones_like(where))

    def firings(self) -> Int[np.ndarray, " latent"]:
        """Firings of each latent."""
        return self.fired.sum(0).cpu().numpy()

    def main_phase(self) -> Int[np.ndarray, " latent"]:
        """The phase (its code) in which most of a latent's firings are; the first of those that tie."""
        return self.fired.cpu().numpy().argmax(axis=0)

    def table(
        self, layer: int, neighbour: Int[np.ndarray, " latent"], cosine: Float[np.ndarray, " latent"]
    ) -> pd.DataFrame:
        """One row per latent, dead ones too. Rates are shares of unmasked tokens; NaN where there are none."""
        fired, firings = self.fired.cpu().numpy(), self.firings()
        columns: dict[str, Any] = {
            "layer": np.full(self.n_latents, layer, dtype=np.int16),
            "latent": np.arange(self.n_latents, dtype=np.int32),
            "firings": firings,
            "rate": _share(firings, int(self.tokens.sum())),
        }
        for code, phase in enumerate(PHASES):
            columns[f"rate_{phase}"] = _share(fired[code], int(self.tokens[code]))
        for kind, counts, wholes in (
            ("rate", self.response_fired, self.response_tokens),
            ("traces", self.traces_fired, self.traces),
        ):
            for number in (1, 0):
                share = _share(counts[number].cpu().numpy(), int(wholes[number]))
                columns[f"{kind}_{OUTCOMES[number]}"] = share
        columns["mean_activation"] = (self.mass.cpu().numpy() / np.maximum(firings, 1)).astype(np.float32)
        columns["max_activation"] = self.peak.cpu().numpy()
        columns["histogram"] = list(self.histogram.cpu().numpy())
        columns |= {"neighbour": neighbour.astype(np.int32), "neighbour_cosine": cosine}
        return pd.DataFrame(columns)

    def facts(self) -> dict[str, Any]:
        """What the rates are shares of, and the histogram's edges: for the card."""
        tokens = self.tokens.tolist()
        facts: dict[str, Any] = {"histogram_edges": HISTOGRAM_EDGES.tolist(), "tokens": sum(tokens)}
        facts |= {f"tokens_{phase}": count for phase, count in zip(PHASES, tokens, strict=True)}
        for number, outcome in enumerate(OUTCOMES):
            facts[f"traces_{outcome}"] = int(self.traces[number])
            facts[f"tokens_{outcome}"] = int(self.response_tokens[number])
        return facts


def _share(part: Int[np.ndarray, " latent"], whole: int) -> Float[np.ndarray, " latent"]:
    return part / whole if whole else np.full(len(part), np.nan)
