"""Do the models of a pair read exactly the ids that the alignment guard has checked?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from reasondiff.config import Stream
from reasondiff.models.load import read_info
from reasondiff.models.stream import ActivationStream
from reasondiff.store import ArtefactError, digest, read_json
from reasondiff.text.tokens import load_tokens


def open_stream(
    models: Sequence[str],
    tokens: str,
    alignment: str,
    layers: Sequence[int] | None,
    stream: Mapping[str, Any],
    context: int,
    device: str,
    dtype: str,
    place: Literal["block", "mlp"] = "block",
) -> ActivationStream:
    """The activation stream of a pair, or of one model's MLPs (`place`), from its files; `layers` None means every
    layer that all models have.

    Raises:
        ArtefactError: the token table is not the one the guard checked.
    """
    infos = [read_info(path) for path in models]
    table, guard = load_tokens(tokens), read_json(alignment)
    if guard["ids_digest"] != table.ids_digest():
        raise ArtefactError(
            f"{alignment} was made for other ids than those in {tokens}: delete it and run the same command again"
        )
    wanted = range(min(info.layers for info in infos)) if layers is None else layers
    settings = Stream.model_validate(dict(stream))
    return ActivationStream(infos, list(wanted), table, guard["foreign_ids"], settings, context, device, dtype, place)


def stream_card(stream: ActivationStream) -> dict[str, Any]:
    """What determines the activations: weights and ids that were read, and how."""
    return {
        # a list: the order says which model is which side
        "models": [[info.name, info.weights_digest] for info in stream.infos],
        "ids_digest": stream.table.ids_digest(),
        "foreign_ids": stream.foreign.tolist(),
        "stream": stream.settings.model_dump(mode="json"),
        "context": stream.context,
        "place": stream.place,
        "dtype": str(stream.models[0].dtype).removeprefix("torch."),
    }


def training_card(stream: ActivationStream) -> dict[str, Any]:
    """`stream_card`, and which documents are for training and which for calibration: the digest of the ids says
    nothing of that."""
    return {**stream_card(stream), "parts_digest": digest(stream.table.part.tobytes())}
