"""What does a crosscoder find where there is nothing learnt to be found?

One point of a bank is trained as always, on copies of the pair's models with random weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasondiff.config import Bank, Tracking
from reasondiff.dictionaries.crosscoder import Crosscoder, load_crosscoder
from reasondiff.dictionaries.sweep import Outputs, train_bank
from reasondiff.models.pairing import stream_card
from reasondiff.models.stream import ActivationStream
from reasondiff.models.untrained import open_untrained_stream
from reasondiff.store import ArtefactError

NO_TRACKING = Tracking(kind="none", project="untrained", mode="offline")


def train_untrained(
    bank: Bank,
    point: str,
    layer: int,
    seed: int,
    tokens: int,
    stream: ActivationStream,
    threshold_tokens: int,
    code: str,
) -> Crosscoder:
    """The point of the bank, trained on `tokens` unmasked tokens of a stream of random models (`open_untrained_stream`
    with the same seed). Its card says so under `untrained`.

    Raises:
        ArtefactError: the bank has no such point.
    """
    if point not in bank.points:
        raise ArtefactError(f"the bank has no point {point!r}; it has {', '.join(bank.points)}")
    shorter = bank.model_copy(update={"tokens": tokens, "layers": (layer,), "points": {point: bank.points[point]}})
    pair = f"{bank.pairs[0]}, random weights"
    with tempfile.TemporaryDirectory() as scratch:
        outputs = Outputs(scratch, [layer], [point], seed)
        checkpoint = str(Path(scratch) / "checkpoint.safetensors")
        train_bank(shorter, pair, outputs, lambda: stream, threshold_tokens, NO_TRACKING, code, checkpoint, None)
        trained = load_crosscoder(outputs.path(layer, point), stream.device)
    return replace(trained, card={**trained.card, "untrained": {"seed": seed}})


def with_its_models(
    paths: str | Sequence[str],
    models: Sequence[str],
    tokens: str,
    alignment: str,
    layers: Sequence[int],
    **reading: Any,
) -> tuple[Crosscoder, ActivationStream] | None:
    """The crosscoder in the one path there is, with the stream of the random models that it learnt from; None where
    there is no path. The models are drawn anew, from the seed in its card.

    Raises:
        ArtefactError: the models drawn are not those that the crosscoder learnt from: other models were given, or
            another version of the libraries draws otherwise.
    """
    if not paths:
        return None
    (path,) = [paths] if isinstance(paths, str) else paths
    crosscoder = load_crosscoder(path, reading["device"])
    if "untrained" not in crosscoder.card:
        raise ArtefactError(f"{path} was not made by train_untrained: its card says nothing of random models")
    stream = open_untrained_stream(models, tokens, alignment, layers, crosscoder.card["untrained"]["seed"], **reading)
    came, expected = stream_card(stream)["models"], crosscoder.card["models"]
    if came != expected:
        raise ArtefactError(
            f"{path} learnt from the random models {expected}, but those drawn now are {came}: delete it and run the "
            "same command again"
        )
    return crosscoder, stream
