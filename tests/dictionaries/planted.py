"""Paired activations whose shared and exclusive directions are known, and crosscoders trained on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from reasondiff.config import Bank, BatchTopKPoint, L1Point, Latents, Replication
from reasondiff.dictionaries.trainer import Trainer
from reasondiff.latents.ownership import relative_norm, tags

WIDTH, LATENTS, BATCH = 32, 96, 512

CUTS = Latents(
    tokens=1,
    exclusive_delta=0.1,
    shared_delta=(0.4, 0.6),
    nu_reconstruction=0.5,
    nu_error=0.2,
    min_firings=50,
    problem_groups=10,
    probe_tokens=1,
    ridge=1e-3,
    replication=Replication(cosine=0.7, correlation=0.5, seeds=3),
)


def batch_topk(**changes):
    settings = {"k": 3, "auxiliary_weight": 1 / 32, "stale_after_tokens": 20_000, "learning_rate": 3e-3, "seeds": (0,)}
    return BatchTopKPoint(method="batch_topk", **{**settings, **changes})


def l1(**changes):
    settings = {"reconstruction": "sum_of_squares", "sparsity": 0.5, "sparsity_warmup_share": 0.1}
    return L1Point(method="l1", **{**settings, "learning_rate": 3e-3, "seeds": (0,), **changes})


def bank(**changes):
    settings = {
        "pairs": ("pair",),
        "layers": (0,),
        "latents": LATENTS,
        "tokens": 600 * BATCH,
        "batch_tokens": BATCH,
        "buffer_tokens": 4 * BATCH,
        "warmup_share": 0.05,
        "decay_share": 0.2,
        "gradient_clip": 1.0,
        "decoder_norm": 0.1,
        "checkpoint_minutes": 10,
        "independent_halves": False,
        "points": {"point": batch_topk()},
    }
    return Bank(**{**settings, **changes})


@dataclass
class Planted:
    """Two models that write `shared` features both, and some features one of them alone.

    Every feature has its own random direction in each model that has it, zeros in the other. A feature that comes on
    stays on with probability `persistence` a token, so that sequences are correlated as text is.
    """

    shared: int = 40
    base_only: int = 10
    reasoning_only: int = 10
    active: float = 3.0  # mean number of features that are on
    persistence: float = 0.0
    noise: float = 0.02
    seed: int = 0
    directions: torch.Tensor = field(init=False)  # (feature, model, unit)

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randn(self.features, 2, WIDTH, generator=self.generator)
        self.directions = rows / rows.norm(dim=2, keepdim=True)
        self.directions[self.owner == 0, 1] = 0
        self.directions[self.owner == 1, 0] = 0

    @property
    def features(self) -> int:
        return self.shared + self.base_only + self.reasoning_only

    @property
    def owner(self) -> torch.Tensor:
        """0: the base alone, 1: the reasoning model alone, 2: both."""
        return torch.tensor([2] * self.shared + [0] * self.base_only + [1] * self.reasoning_only)

    def sample(self, tokens: int) -> torch.Tensor:
        """[token, model, unit], of mean norm sqrt(width) in each model."""
        on = torch.zeros(tokens, self.features, dtype=torch.bool)
        starts = self.active / self.features * (1 - self.persistence)
        draws = torch.rand(tokens, self.features, generator=self.generator)
        stays = torch.rand(tokens, self.features, generator=self.generator) < self.persistence
        on[0] = draws[0] < self.active / self.features
        for token in range(1, tokens):
            on[token] = (on[token - 1] & stays[token]) | (draws[token] < starts)
        sizes = on * (0.5 + torch.rand(tokens, self.features, generator=self.generator))
        x = torch.einsum("nf,fmd->nmd", sizes, self.directions)
        x = x + self.noise * torch.randn(x.shape, generator=self.generator)
        return x * (WIDTH**0.5 / x.norm(dim=2).mean(0))[:, None]


def trained(x: torch.Tensor, point, settings: Bank, seed: int = 0) -> Trainer:
    """A trainer after all its steps on these activations, in random order."""
    steps = settings.tokens // settings.batch_tokens
    trainer = Trainer(point, settings, x.shape[1], x.shape[2], steps, seed, "cpu")
    trainer.start_at(x.mean(0))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (settings.batch_tokens,), generator=generator)
        trainer.step(x[rows], measured=False)
    return trainer


@dataclass(frozen=True)
class Verdict:
    """What the decoder norms of a trained crosscoder say: Delta, tags and directions of its live latents."""

    delta: np.ndarray
    tags: np.ndarray
    rows: torch.Tensor  # (latent, model * unit), of norm 1

    def exclusive(self) -> int:
        return int(np.isin(self.tags, ["base_only", "reasoning_only"]).sum())


def verdict(trainer: Trainer, x: torch.Tensor) -> Verdict:
    """Tags of the latents that fire at the training threshold on `x`."""
    crosscoder = trainer.finish(torch.ones(x.shape[1]), trainer.threshold, {})
    code = crosscoder.encode(x)
    live = torch.bincount(code.latents, minlength=code.n_latents) > 0
    norm = crosscoder.norm[:, live].numpy()
    delta = relative_norm(norm[0], norm[-1])
    rows = torch.nn.functional.normalize(crosscoder.decoder[live], dim=1)
    return Verdict(delta, tags(delta, np.ones(len(delta), dtype=bool), CUTS), rows)


def precision_and_recall(found: Verdict, planted: Planted) -> tuple[float, float]:
    """Of the latents tagged exclusive, the share whose closest planted feature is exclusive to the same model; and of
    the planted exclusive features, the share with a latent within cosine 0.9 that is tagged exclusive to that model.
    """
    planted_rows = torch.nn.functional.normalize(planted.directions.flatten(1), dim=1)
    cosines = found.rows @ planted_rows.T  # (latent, feature)
    wanted = {0: "base_only", 1: "reasoning_only", 2: "shared"}
    truth = np.array([wanted[int(owner)] for owner in planted.owner])
    closest = truth[cosines.argmax(1).numpy()]
    claimed = np.isin(found.tags, ["base_only", "reasoning_only"])
    precision = float((closest == found.tags)[claimed].mean()) if claimed.any() else 0.0
    recalled = [
        bool(((cosines[:, feature] > 0.9).numpy() & (found.tags == truth[feature])).any())
        for feature in np.flatnonzero(truth != "shared")
    ]
    return precision, float(np.mean(recalled))
