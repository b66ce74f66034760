"""An activation stream without models: made-up documents whose activations are planted ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from planted import WIDTH, Planted

from reasondiff.config import PARTS, Stream
from reasondiff.models.stream import ActivationStream, Block
from reasondiff.text.rendering import PHASES
from reasondiff.text.tokens import TokenTable

SETTINGS = Stream(batch_rows=2, first_positions=2, norm_factor=10.0, calibration_tokens=600, compile=False)


def made_up_table(documents: int = 60, seed: int = 0) -> TokenTable:
    """Documents of 20 to 60 tokens, two to a problem, problems in random order; of each ten documents six are for
    training and one for each other part."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(20, 60, documents)
    parts = ["train"] * 6 + ["calibrate", "choose", "score", "report"]
    tokens = int(lengths.sum())
    return TokenTable(
        ids=generator.integers(0, 50, tokens).astype(np.int32),
        phases=generator.integers(0, len(PHASES), tokens).astype(np.uint8),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        part=np.array([PARTS.index(parts[d % 10]) for d in range(documents)], dtype=np.uint8),
        problem=generator.permutation(documents)[np.arange(documents) // 2].astype(np.int32),
        correct=np.full(documents, -1, dtype=np.int8),
        source=np.zeros(documents, dtype=np.uint8),
        bytes=lengths.astype(np.int32),
    )


class PlantedStream(ActivationStream):
    """What `ActivationStream` offers, with planted activations (layer 2: those of layer 1 with the models swapped)."""

    def __init__(self, layers=(1,), table: TokenTable | None = None, foreign=(), planted: Planted | None = None):
        self.table = made_up_table() if table is None else table
        self.layers, self.settings, self.context = list(layers), SETTINGS, 64
        self.device, self.width = "cpu", WIDTH
        self.models, self.place = [SimpleNamespace(dtype=torch.float32)] * 2, "block"
        self.infos = [SimpleNamespace(name=name, weights_digest=name) for name in ("first", "last")]
        self.foreign = np.array(sorted(foreign), dtype=np.int64)
        x = (planted or Planted()).sample(len(self.table.ids)) * torch.tensor([1.0, 3.0])[:, None]
        self.activations = {1: x, 2: x.flip(1).contiguous()}
        self.blocks_made = 0

    def read(self, rows) -> Block:
        self.blocks_made += 1
        real = rows.document >= 0
        token, position = rows.token[real], rows.positions[real]
        kept = (position >= self.settings.first_positions) & ~np.isin(self.table.ids[token], self.foreign)
        tensor = torch.from_numpy
        activations = {layer: self.activations[layer][tensor(token)] for layer in self.layers}
        return Block(activations, tensor(token), tensor(rows.document[real]), tensor(position), tensor(kept))
