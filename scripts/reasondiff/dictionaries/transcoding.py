"""Which transcoders does a model get, and what does each say of how it was made?

All layers (and in a sweep all points) of a model learn from one stream, so that it runs once over the text.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reasondiff.config import Schedule, Tracking, TranscoderPoint
from reasondiff.dictionaries.bank import Make, Site
from reasondiff.dictionaries.peer import from_peer, train_with_sparsify
from reasondiff.dictionaries.planning import transcoder_weights
from reasondiff.dictionaries.replacements import AffineMap, first_documents, fit_maps
from reasondiff.dictionaries.schedule import point_seed
from reasondiff.dictionaries.tasks import Key, Task, site_card, train_tasks
from reasondiff.dictionaries.team import ALONE, Team
from reasondiff.dictionaries.transcoder import (
    CONFIG,
    WEIGHTS,
    Transcoder,
    TranscoderFolders,
    hookpoint,
    layer_of,
    load_transcoder,
    save_transcoder,
)
from reasondiff.dictionaries.transcoder_trainer import Recipe, TranscoderTrainer, Workspace
from reasondiff.models.load import ModelError
from reasondiff.models.pairing import open_stream, training_card
from reasondiff.models.stream import ActivationStream, SiteStatistics
from reasondiff.store import ArtefactError, file_digest, fingerprint, write_json_lines
from reasondiff.tracking import Tracker

log = logging.getLogger(__name__)

HISTORY = "training.jsonl"


def train_transcoders_from_files(
    model: str,
    tokens: str,
    alignment: str,
    starts: Sequence[str],
    reading: Mapping[str, Any],
    layers: Sequence[int],
    points: Mapping[str, Any],
    schedule: Mapping[str, Any],
    training: Mapping[str, Any],
    folder: str,
    seed: int,
    code: str,
    checkpoint: str,
    team: Team = ALONE,
) -> None:
    """`train_transcoders`, or `train_peers` where `training` says so, from paths and plain settings, as one process
    hands them to another. `starts`: weights of the transcoders to begin as.

    Raises:
        ModelError: sparsify is to train in several processes.
    """
    train = {"reasondiff": train_transcoders, "sparsify": train_peers}[training["trainer"]]
    if train is train_peers and team.size > 1:
        raise ModelError("trainer: sparsify trains in one process here: give its rule one card (gpu=1)")
    begun = [Path(weights).parent for weights in starts]
    train(
        open_stream([model], tokens, alignment, layers, **reading, place="mlp"),
        {name: TranscoderPoint.model_validate(point) for name, point in points.items()},
        Schedule.model_validate(schedule),
        Recipe(**training["recipe"]),
        TranscoderFolders(folder, seed),
        starts={layer_of(folder): folder for folder in begun},
        memory_gib=training["memory_gib"],
        tracking=Tracking.model_validate(training["tracking"]),
        code=code,
        checkpoint=Path(checkpoint),
        **({"team": team} if train is train_transcoders else {}),
    )


def train_transcoders(
    stream: ActivationStream,
    points: Mapping[str, TranscoderPoint],
    schedule: Schedule,
    recipe: Recipe,
    folders: TranscoderFolders,
    starts: Mapping[int, Path],
    memory_gib: float | int | None,
    tracking: Tracking,
    code: str,
    checkpoint: Path,
    team: Team = ALONE,
) -> None:
    """Trains the unfinished transcoders of a model: each point at each layer of the stream.

    `starts` maps a layer to the folder of the transcoder that it begins as; without one it begins as the best linear
    map beside a random encoder. An interrupted training goes on from `checkpoint`, which is removed in the end. Each
    process of the `team` calls this, and trains its share.

    Raises:
        ArtefactError: a transcoder to begin as has another size than the point.
        ModelError: a point has fewer latents than its k.
    """
    model = stream.infos[0].name
    begun = {layer: load_transcoder(path) for layer, path in starts.items()}
    cards = {
        (layer, name): _card(stream, layer, name, point, schedule, recipe, folders.seed, starts.get(layer), code)
        for layer in stream.layers
        for name, point in points.items()
    }
    for (layer, name), card in cards.items():
        if layer in begun:
            _check_start(begun[layer], points[name], stream.width, starts[layer])
        card["fingerprint"] = fingerprint(**card)
    tasks = [_task(stream.width, points[name], folders, key, cards[key]) for key in cards for name in [key[1]]]

    def finish(done: dict[Key, Task], sites: dict[int, Site], _statistics: dict[int, SiteStatistics]) -> None:
        for layer, name in done:
            site, folder = sites[layer], folders.path(name, layer)
            write_json_lines(folder / HISTORY, site.history[name])
            card = {**cards[layer, name], **site_card(site, name)}
            save_transcoder(folder, site.trainers[name].finish(card))

    def begin(reading: ActivationStream, statistics: dict[int, SiteStatistics]) -> Make:
        maps = best_maps(reading.only([layer for layer in reading.layers if layer not in begun]), statistics)
        return trainers(points, schedule, recipe, model, folders.seed, begun, maps)

    train_tasks(
        tasks, schedule, folders.seed, stream, begin, finish, memory_gib, checkpoint,
        lambda: Tracker(tracking, f"{model}/seed{folders.seed}", Path(folders.folder)), team,
    )  # fmt: skip


def best_maps(stream: ActivationStream, statistics: Mapping[int, SiteStatistics]) -> dict[int, AffineMap]:
    """The best linear map of each layer of a stream, from its calibration tokens in one pass."""
    if not stream.layers:
        return {}
    sample = first_documents(stream.table, "calibrate", stream.settings.calibration_tokens, stream.context)
    return fit_maps(stream, statistics, sample)


def train_peers(
    stream: ActivationStream,
    points: Mapping[str, TranscoderPoint],
    schedule: Schedule,
    recipe: Recipe,
    folders: TranscoderFolders,
    starts: Mapping[int, Path],
    memory_gib: float | int | None,
    tracking: Tracking,
    code: str,
    checkpoint: Path,
) -> None:
    """`train_transcoders` by the trainer of sparsify: all unfinished layers of a point in one pass, point by point.

    It has no masks but ids, plans no memory, resumes nothing and writes its figures to wandb alone, so `memory_gib` and
    `tracking` are not used and the histories stay empty. `starts` must be empty (the config check sees to that).
    """
    del starts, memory_gib, tracking
    documents = stream.table.documents_of("train")
    for name, point in points.items():
        cards = {
            layer: {**_card(stream, layer, name, point, schedule, recipe, folders.seed, None, code), "trainer": "peer"}
            for layer in stream.layers
        }
        for card in cards.values():
            card["fingerprint"] = fingerprint(**card)
        tasks = {layer: _task(stream.width, point, folders, (layer, name), card) for layer, card in cards.items()}
        unfinished = [layer for layer, task in tasks.items() if not task.is_whole()]
        log.info("%s: train layers %s with sparsify, keep the others", name, unfinished)
        if not unfinished:
            continue
        with tempfile.TemporaryDirectory(dir=_made(checkpoint.parent)) as scratch:
            found = train_with_sparsify(
                stream.models[0], stream.table, documents, stream.foreign.tolist(), point, unfinished, folders.seed,
                schedule, recipe.auxiliary_weight, recipe.stale_after_tokens, stream.context, Path(scratch) / name,
            )  # fmt: skip
            for layer, folder in found.items():
                write_json_lines(folders.path(name, layer) / HISTORY, [])
                save_transcoder(folders.path(name, layer), from_peer(folder, cards[layer]))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trainers(
    points: Mapping[str, TranscoderPoint],
    schedule: Schedule,
    recipe: Recipe,
    model: str,
    seed: int,
    begun: Mapping[int, Transcoder],
    maps: Mapping[int, AffineMap],
) -> Make:
    """How each transcoder of a model begins: as another one, or from a seed of its own at the best linear map."""
    workspace = Workspace()

    def make(layer: int, name: str, statistics: SiteStatistics) -> TranscoderTrainer:
        own_seed, start = point_seed(seed, model, layer, name), begun.get(layer)
        trainer = TranscoderTrainer(points[name], schedule, recipe, statistics, own_seed, start, workspace)
        if start is None:
            trainer.start_at(maps[layer])
        return trainer

    return make


def _check_start(start: Transcoder, point: TranscoderPoint, width: int, path: Path) -> None:
    expected = (point.expansion * width, width)
    if start.encoder.shape != expected:
        raise ArtefactError(
            f"{path} has {start.n_latents} latents of width {start.width}; to begin as it, expected {expected[0]} of "
            f"width {expected[1]} (the same point, and models of one width)"
        )


def _card(
    stream: ActivationStream,
    layer: int,
    name: str,
    point: TranscoderPoint,
    schedule: Schedule,
    recipe: Recipe,
    seed: int,
    start: Path | None,
    code: str,
) -> dict[str, Any]:
    """All that determines a transcoder."""
    return {
        **training_card(stream),
        "kind": "transcoder",
        "hookpoint": hookpoint(layer),
        "layer": layer,
        "name": name,
        "point": point.model_dump(mode="json"),
        "schedule": schedule.model_dump(mode="json", exclude={"checkpoint_minutes"}),
        "recipe": asdict(recipe),
        "seed": seed,
        "started_from": None if start is None else file_digest(start / WEIGHTS),
        "code": code,
    }


def _task(width: int, point: TranscoderPoint, folders: TranscoderFolders, key: Key, card: Mapping[str, Any]) -> Task:
    layer, name = key
    latents = point.expansion * width
    if point.k > latents:
        raise ModelError(
            f"point {name!r} has {latents} latents (expansion {point.expansion}, width {width}), fewer than its "
            f"k = {point.k}: a larger expansion or a smaller k would do"
        )
    files = tuple(folders.path(name, layer) / file for file in (WEIGHTS, CONFIG, HISTORY))
    return Task(layer, name, files, card["fingerprint"], transcoder_weights(latents, width), latents)
