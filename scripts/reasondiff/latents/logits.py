"""Which tokens does a latent raise and lower, in each model of its dictionary?

The direct effect of a latent's decoder direction d on the logits: U (w * d), with the final norm's weight w and the
unembedding U. The unit is logits per unit of the latent's activation (for a crosscoder, of its score) *before* the
final norm divides by the residual stream's rms: at a token whose stream has rms r, an activation f moves the logits by
f / r times these numbers, if r stays as it is. A common r changes no ranking of tokens. What later blocks make of the
direction is not in it.

Source: docs/methods.md §4; direct logit attribution, nostalgebraist 2020, "Interpreting GPT: the logit lens".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.load import ModelError, ModelInfo
from reasondiff.models.unembedding import Unembedding, read_unembedding
from reasondiff.store import ArtefactError, write_arrow

EFFECTS_AT_ONCE = 2**24  # latents x ids: 64 MiB of effects, and as much while they are ranked
SCHEMA = pa.schema(
    [
        ("layer", pa.int16()),
        ("latent", pa.int32()),
        ("model", pa.string()),
        ("raised", pa.list_(pa.string())),
        ("raised_by", pa.list_(pa.float32())),  # falling
        ("lowered", pa.list_(pa.string())),
        ("lowered_by", pa.list_(pa.float32())),  # rising: the most negative first
    ]
)


def measure_logit_effects(
    models: Sequence[ModelInfo],
    crosscoders: Mapping[str, Crosscoder],
    firing: Mapping[str, pd.DataFrame],
    tokens: Sequence[str],
    number: int,
    device: str,
) -> dict[str, pa.Table]:
    """{name: table of `SCHEMA`} for some crosscoders of one site, a row for each live latent and each of its models,
    ordered by layer, latent and side.

    `models` in the order of the pair; `tokens` are the strings of the declared tokenizer, by id; `number` tokens are
    named of each kind, fewer where there are not so many. A latent is live where its table says `firings` > 0.

    Raises:
        ModelError: the logits of a model's architecture are not known, or its width is another than the crosscoder's.
        ArtefactError: a table of firings is another dictionary's.
    """
    # one model at a time: the unembedding of a large one takes gigabytes
    found: dict[str, dict[int, pa.Table]] = {name: {} for name in crosscoders}
    for index, info in enumerate(models):
        reading = [name for name, crosscoder in crosscoders.items() if index in crosscoder.sides]
        unembedding = read_unembedding(info, device) if reading else None
        for name in reading:
            crosscoder = crosscoders[name]
            side = crosscoder.sides.index(index)
            rows = crosscoder.decoder.view(crosscoder.n_latents, crosscoder.n_models, crosscoder.width)[:, side]
            layer, live = _live_of_one_layer(firing[name], crosscoder.n_latents, name)
            found[name][side] = effects_table(rows, layer, live, unembedding, tokens, number)
    return {name: _interleaved([tables[side] for side in sorted(tables)]) for name, tables in found.items()}


def measure_transcoder_logit_effects(
    model: ModelInfo,
    transcoders: Mapping[int, Transcoder],
    firing: pd.DataFrame,
    tokens: Sequence[str],
    number: int,
    device: str,
) -> pa.Table:
    """A table of `SCHEMA` for the transcoders {layer: transcoder} of one model, ordered by layer and latent. A
    transcoder's output is added to the residual stream, so its decoder rows are directions of that.

    Raises:
        ModelError: as `measure_logit_effects`.
        ArtefactError: the table of firings has other layers or latents.
    """
    if odd := sorted(set(transcoders) ^ set(firing["layer"])):
        raise ArtefactError(f"transcoders and the table of their firings differ in layer(s) {odd}: run both again")
    unembedding = read_unembedding(model, device)
    tables = []
    for layer in sorted(transcoders):
        rows = transcoders[layer].decoder
        _, live = _live_of_one_layer(firing[firing["layer"] == layer], len(rows), f"layer {layer}")
        tables.append(effects_table(rows, layer, live, unembedding, tokens, number))
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def _live_of_one_layer(firing: pd.DataFrame, n_latents: int, what: str) -> tuple[int, Int[np.ndarray, " live"]]:
    """(layer, live latents, ascending) of a table of firings with one row per latent."""
    latents = firing["latent"].to_numpy()
    if sorted(latents) != list(range(n_latents)) or firing["layer"].nunique() > 1:
        raise ArtefactError(
            f"{what} has {n_latents} latents at one layer; the table of firings has {len(latents)} rows of layers "
            f"{sorted(firing['layer'].unique().tolist())}: it is another dictionary's, delete it and run again"
        )
    layer = int(firing["layer"].iloc[0]) if len(firing) else 0
    return layer, np.sort(latents[firing["firings"].to_numpy() > 0])


# --------------------------------------------------------------------------------------------- effects of a layer


@dataclass(frozen=True)
class Ranking:
    """The ids with the largest or smallest effects of some latents, strongest first, and the effects."""

    ids: Int[Tensor, "latent place"]
    effects: Float[Tensor, "latent place"]


def effects_table(
    directions: Float[Tensor, "latent unit"],
    layer: int,
    live: Int[np.ndarray, " live"],
    unembedding: Unembedding,
    tokens: Sequence[str],
    number: int,
) -> pa.Table:
    """A table of `SCHEMA`: the logit effects of the `live` ones of a layer's latents in one model.

    Raises:
        ModelError: the directions and the model's residual stream differ in width.
        ArtefactError: a direction is not finite.
    """
    if directions.shape[1] != unembedding.width:
        raise ModelError(
            f"decoder directions of {directions.shape[1]} units, but the residual stream of {unembedding.model!r} has "
            f"{unembedding.width}: the dictionary was trained on another model"
        )
    named = torch.tensor([bool(token) for token in tokens], dtype=torch.bool)
    named = torch.nn.functional.pad(named, (0, len(unembedding.weight)))[: len(unembedding.weight)]
    at_once = max(1, EFFECTS_AT_ONCE // max(1, len(named)))
    pieces = [SCHEMA.empty_table()]
    for first in range(0, len(live), at_once):
        chosen = live[first : first + at_once]
        piece = directions[torch.from_numpy(chosen).to(directions.device)].float().to(unembedding.weight.device)
        if not bool(piece.isfinite().all()):
            raise ArtefactError(f"layer {layer}: a decoder direction is not finite; train the dictionary again")
        effects = unembedding.effects(piece)
        raised, lowered = (extremes(sign * effects, named.to(effects.device), number) for sign in (1, -1))
        lowered = Ranking(lowered.ids, 0.0 - lowered.effects)  # not -x, which has negative zeros
        pieces.append(_rows(layer, chosen, unembedding.model, raised, lowered, tokens))
    return pa.concat_tables(pieces)


def extremes(effects: Float[Tensor, "latent id"], named: Bool[Tensor, " id"], number: int) -> Ranking:
    """The `number` ids among `named` with the largest effects, falling; of equal effects the smaller id comes first.

    For each latent: sorted(ids, key=lambda id: (-effect[id], id))[:number]. topk alone says neither which of the
    values that tie at its edge it takes nor in what order; so it gives the edge, and all at or above it are sorted.
    """
    count = min(number, int(named.sum()))
    if count == 0:
        return Ranking(torch.zeros(len(effects), 0, dtype=torch.int64), effects[:, :0])
    among = effects.masked_fill(~named, -torch.inf)
    edge = among.topk(count, dim=1).values[:, -1:]
    rows, ids = (among >= edge).nonzero(as_tuple=True)  # of a row, ids rise
    order = among[rows, ids].argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    starts = torch.searchsorted(rows, torch.arange(len(effects), device=rows.device))
    ids = ids[order[starts[:, None] + torch.arange(count, device=rows.device)]]  # (latent, place)
    return Ranking(ids, effects.gather(1, ids))


def _rows(
    layer: int,
    latents: Int[np.ndarray, " latent"],
    model: str,
    raised: Ranking,
    lowered: Ranking,
    tokens: Sequence[str],
) -> pa.Table:
    strings = pa.array(tokens, pa.string())
    columns: list[pa.Array] = [
        pa.array(np.full(len(latents), layer), pa.int16()),
        pa.array(latents, pa.int32()),
        pa.array([model] * len(latents), pa.string()),
    ]
    for ranking in (raised, lowered):
        count, places = ranking.ids.shape
        starts = pa.array(np.arange(count + 1) * places, pa.int32())
        ids, effects = (part.cpu().numpy().ravel() for part in (ranking.ids, ranking.effects))
        columns.append(pa.ListArray.from_arrays(starts, strings.take(pa.array(ids))))
        columns.append(pa.ListArray.from_arrays(starts, pa.array(effects, pa.float32())))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _interleaved(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of tables of equal length, the first of each, then the second of each."""
    rows = np.arange(len(tables) * len(tables[0])).reshape(len(tables), -1).T.ravel()
    return pa.concat_tables(tables).take(pa.array(rows)).combine_chunks()


def write_logit_effects(path: str | Path, table: pa.Table, card: Mapping[str, Any]) -> None:
    """Writes a table of `SCHEMA` as Parquet, its card in the metadata."""
    write_arrow(path, table.cast(SCHEMA).combine_chunks(), card)
