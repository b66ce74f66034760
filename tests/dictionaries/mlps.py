"""MLPs whose features are known, and an activation stream of them without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from streams import SETTINGS, PlantedStream, made_up_table

from reasondiff.config import Schedule, TranscoderPoint
from reasondiff.models.stream import Block, SiteStatistics

WIDTH = 12


def transcoder_point(**changes) -> TranscoderPoint:
    return TranscoderPoint(**{"expansion": 4, "k": 5, "learning_rate": 5e-3, **changes})


def schedule(**changes) -> Schedule:
    settings = {"tokens": 3000, "batch_tokens": 100, "buffer_tokens": 400, "warmup_share": 0.1, "decay_share": 0.2}
    return Schedule(**{**settings, "gradient_clip": 1.0, "checkpoint_minutes": 10.0, **changes})


@dataclass(frozen=True)
class PlantedMlp:
    """y = relu(x reads^T - threshold) writes + x skip^T + bias: features of which few are on at a token, and a linear
    part. Inputs and outputs have means that are not zero and norms that differ."""

    reads: torch.Tensor  # (feature, unit)
    writes: torch.Tensor  # (feature, unit)
    skip: torch.Tensor  # (output unit, input unit)
    bias: torch.Tensor  # (unit,)
    threshold: float

    @classmethod
    def random(cls, features: int = 20, seed: int = 0, threshold: float = 1.3) -> PlantedMlp:
        """At threshold 1.3 one feature in ten is on."""
        make = torch.Generator().manual_seed(seed)
        reads = torch.nn.functional.normalize(torch.randn(features, WIDTH, generator=make), dim=1)
        writes = 3 * torch.nn.functional.normalize(torch.randn(features, WIDTH, generator=make), dim=1)
        skip = 0.3 * torch.randn(WIDTH, WIDTH, generator=make) / WIDTH**0.5
        return cls(reads, writes, skip, torch.randn(WIDTH, generator=make), threshold)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.reads.T - self.threshold)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x) @ self.writes + x @ self.skip.T + self.bias

    def sample(self, tokens: int, seed: int = 0) -> torch.Tensor:
        """[token, 2, unit], raw inputs and outputs."""
        x = torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.1
        return torch.stack([x, self(x)], dim=1)


def statistics_of(x: torch.Tensor) -> SiteStatistics:
    """What calibration finds when nothing is masked."""
    norms = x.norm(dim=2)
    return SiteStatistics(norms.median(0).values, x.shape[2] ** 0.5 / norms.mean(0), x.mean(0), len(x))


def unexplained(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Share of variance, 0 where `found` is right and 1 where it is the mean."""
    return float((found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def unexplained_by_a_linear_map(x: torch.Tensor) -> float:
    """Of the best affine map from input to output, fitted on these very tokens."""
    given = torch.cat([x[:, 0], torch.ones(len(x), 1)], dim=1)
    return unexplained(given @ torch.linalg.lstsq(given, x[:, 1]).solution, x[:, 1])


class PlantedMlps(PlantedStream):
    """What `ActivationStream` offers with `place="mlp"`: a planted MLP for each layer.

    `factors` multiply inputs and outputs. `before_read[n]` is called before the n-th reading of some rows;
    `layers_read` says which layers each reading was of. Both count those of the streams of `only` too.
    """

    def __init__(
        self,
        layers=(1, 2),
        table=None,
        mlps: Mapping[int, PlantedMlp] | None = None,
        factors=(1.0, 1.0),
        before_read: Mapping[int, Callable[[], None]] | None = None,
    ):
        self.table = made_up_table() if table is None else table
        self.layers, self.settings, self.context = sorted(layers), SETTINGS, 64
        self.device, self.width, self.place = "cpu", WIDTH, "mlp"
        self.models = [SimpleNamespace(dtype=torch.float32)]
        self.infos = [SimpleNamespace(name="planted", weights_digest="planted")]
        self.foreign = np.array([], dtype=np.int64)
        self.mlps = mlps or {layer: PlantedMlp.random(seed=layer) for layer in layers}
        self.activations = {
            layer: self.mlps[layer].sample(len(self.table.ids), seed=layer) * torch.tensor(factors)[:, None]
            for layer in layers
        }
        self.before_read, self.layers_read, self.blocks_made = before_read or {}, [], 0

    @property
    def reads(self) -> int:
        return len(self.layers_read)

    def read(self, rows) -> Block:
        self.layers_read.append(tuple(self.layers))
        self.before_read.get(self.reads, lambda: None)()
        return super().read(rows)
