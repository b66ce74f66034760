"""What transcoders does `sparsify`, the library whose format ours have, train from the same text?

It is the peer that our own training is compared with, and `trainer: sparsify` takes it in place of ours. Where it
differs (eai-sparsify 1.3.3):

- Its auxiliary loss gives the encoder of a dead latent no gradient, and a latent of value 0 counts as firing.
- It masks by token id alone: foreign ids are left out, first positions and sinks by norm are not.
- Every layer starts from the same random encoder; documents are read whole, without a buffer that mixes tokens.

Source: docs/methods.md §6 and §7; Paulo et al. 2025, arXiv 2501.18823; EleutherAI/sparsify.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasondiff.config import Schedule, TranscoderPoint
from reasondiff.dictionaries.transcoder import Transcoder, hookpoint, load_transcoder
from reasondiff.job import LOG_LINE_SECONDS
from reasondiff.models.load import ModelError
from reasondiff.models.mlp import find_mlp
from reasondiff.text.tokens import TokenTable

log = logging.getLogger(__name__)


def train_with_sparsify(
    model: Any,
    table: TokenTable,
    documents: np.ndarray,
    foreign_ids: Sequence[int],
    point: TranscoderPoint,
    layers: Sequence[int],
    seed: int,
    schedule: Schedule,
    auxiliary_weight: float | int,
    stale_after_tokens: int,
    context: int,
    folder: Path,
) -> dict[int, Path]:
    """Trains a skip transcoder of each layer's MLP, all in one pass; returns the folder of each layer's checkpoint.

    Only what is on disk counts: the optimiser averages weights when it saves and leaves others in memory. `folder`
    also receives the optimiser's state, as large as the weights, from which nothing goes on.

    The optimiser is sparsify's default, schedule-free sign descent, with its own learning rate. `learning_rate` of
    the point is a rate for Adam on scaled activations and is not used here, nor are the schedule's `warmup_share`,
    `decay_share`, `gradient_clip`, `buffer_tokens` and `checkpoint_minutes`.

    Raises:
        ModelError: sparsify is not installed, the model has no such MLPs or is on a CPU in another precision than
            float32, every id of its vocabulary occurs in the text, or no token is left to train on.
    """
    _refuse_model(model, layers)
    folder = Path(folder).absolute()
    padding = unused_id(table, model.config.vocab_size)
    order, batch_rows = reading_order(table, documents, foreign_ids, schedule, context, seed)
    with _aside(model.device):
        sparsify = _import_sparsify()
        coder = sparsify.SparseCoderConfig(
            expansion_factor=point.expansion, k=point.k, transcode=True, skip_connection=True
        )
        settings = sparsify.TrainConfig(
            coder,
            batch_size=batch_rows,
            auxk_alpha=auxiliary_weight,
            dead_feature_threshold=stale_after_tokens,
            exclude_tokens=[padding, *sorted(foreign_ids)],
            hookpoints=[hookpoint(layer) for layer in layers],
            init_seeds=[seed],
            save_every=len(order) + 2,  # never before the end: steps are at most rows
            log_to_wandb=False,
            save_dir=str(folder.parent),
            run_name=folder.name,
        )
        # without the head, whose logits nothing here reads
        sparsify.Trainer(settings, Rows(table, order, context, padding), model.base_model).fit()
    return {layer: folder / hookpoint(layer) for layer in layers}


def from_peer(folder: Path, card: Mapping[str, Any]) -> Transcoder:
    """The transcoder in a layer's folder, with a card that says which version of sparsify trained it.

    Raises:
        ArtefactError: the folder holds no complete transcoder.
    """
    trainer = f"eai-sparsify {importlib.metadata.version('eai-sparsify')}"
    return replace(load_transcoder(folder), card={**card, "trainer": trainer})


def _refuse_model(model: Any, layers: Sequence[int]) -> None:
    count = model.config.num_hidden_layers
    if beyond := [layer for layer in layers if layer >= count]:
        raise ModelError(f"the model has {count} layers (0 to {count - 1}); layer(s) {beyond} were asked for")
    for layer in layers:
        find_mlp(model, layer)  # refuses an architecture whose MLPs are not known
    if model.device.type == "cpu" and model.dtype != torch.float32:
        raise ModelError(f"on a CPU sparsify trains in float32 only, the model is in {model.dtype}: set dtype: float32")


def _import_sparsify() -> Any:
    try:
        import sparsify
    except ModuleNotFoundError as error:
        raise ModelError(
            f'trainer: sparsify needs that library ({error}). Install it with `pip install "reasondiff[sparsify]"`, or '
            "set trainer: reasondiff"
        ) from error
    return sparsify


# ------------------------------------------------------------------------------------------------ rows


class Rows:
    """What sparsify reads: one document a row, so that attention never crosses documents (it gives a model nothing
    but ids), filled up on the right, where causal attention hides the filling from the document."""

    def __init__(self, table: TokenTable, order: np.ndarray, context: int, padding: int):
        self.table, self.order, self.context, self.padding = table, order, context, padding

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start, end = self.table.starts[self.order[index] :][:2]
        ids = self.table.ids[start : min(end, start + self.context)]
        row = torch.full((self.context,), self.padding)
        row[: len(ids)] = torch.from_numpy(ids.astype(np.int64))
        return {"input_ids": row}


def unused_id(table: TokenTable, vocabulary: int) -> int:
    """The smallest id below `vocabulary` that occurs in no document.

    Raises:
        ModelError: every id occurs.
    """
    unused = np.flatnonzero(np.bincount(table.ids, minlength=vocabulary)[:vocabulary] == 0)
    if not len(unused):
        raise ModelError(
            f"each of the model's {vocabulary} ids occurs in the text, and sparsify needs one that does not to fill up "
            "rows with. Set trainer: reasondiff"
        )
    return int(unused[0])


def reading_order(
    table: TokenTable, documents: np.ndarray, foreign_ids: Sequence[int], schedule: Schedule, context: int, seed: int
) -> tuple[np.ndarray, int]:
    """(document of each row, rows in a batch): documents in a new random order each round, until at least
    `schedule.tokens` tokens that are not foreign are read, in whole batches of about `batch_tokens` of them.

    Raises:
        ModelError: there is no such token.
    """
    native = np.concatenate([[0], np.cumsum(~np.isin(table.ids, list(foreign_ids)))])  # tokens before each place
    ends = np.minimum(table.starts[1:], table.starts[:-1] + context)
    kept = native[ends] - native[table.starts[:-1]]  # (document,)
    in_a_round = int(kept[documents].sum())
    if not in_a_round:
        raise ModelError("no token to train on: the `train` part is empty, or all its tokens are foreign")
    rounds = math.ceil(schedule.tokens / in_a_round)
    order = np.concatenate([np.random.default_rng([seed, i]).permutation(documents) for i in range(rounds)])
    rows = 1 + int(np.searchsorted(np.cumsum(kept[order]), schedule.tokens))
    batch_rows = max(1, schedule.batch_tokens * len(documents) // in_a_round)
    return np.resize(order, math.ceil(rows / batch_rows) * batch_rows), batch_rows


# ------------------------------------------------------------------------------------------------ side effects


@contextlib.contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Inside, what is printed goes to the log; after it, random numbers and matrix products are as before, which
    sparsify sets for the whole process."""
    printed, precision = _Printed(), torch.get_float32_matmul_precision()
    cards = [device] if device.type == "cuda" else []
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            torch.random.fork_rng(cards),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


class _Printed(io.TextIOBase):
    """A stream that writes to the log: each line printed, of a progress bar one about every ten seconds."""

    said = -math.inf

    def write(self, text: str) -> int:
        if text.startswith("\r"):
            if time.monotonic() - self.said < LOG_LINE_SECONDS:
                return len(text)
            self.said = time.monotonic()
        if text.strip():
            log.info("sparsify: %s", text.strip())
        return len(text)
