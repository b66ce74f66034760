"""Which crosscoders does a bank hold, and what does each say of how it was made?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reasondiff.config import Bank, Tracking
from reasondiff.dictionaries.bank import Make, Site
from reasondiff.dictionaries.crosscoder import Crosscoder, save_crosscoder
from reasondiff.dictionaries.planning import crosscoder_weights
from reasondiff.dictionaries.schedule import point_seed, total_steps
from reasondiff.dictionaries.tasks import Key, Task, site_card, train_tasks
from reasondiff.dictionaries.team import ALONE, Team
from reasondiff.dictionaries.threshold import ThresholdSearch
from reasondiff.dictionaries.trainer import Trainer
from reasondiff.models.pairing import open_stream, training_card
from reasondiff.models.stream import ActivationStream, SiteStatistics, unmasked
from reasondiff.store import fingerprint, write_json_lines
from reasondiff.tracking import Tracker


@dataclass(frozen=True)
class Outputs:
    """Where the points of one bank and seed go: `<folder>/layer<layer>/<point>/seed<seed>/`."""

    folder: str
    layers: list[int]
    points: list[str]
    seed: int

    def path(self, layer: int, point: str, name: str = "crosscoder.safetensors") -> Path:
        return Path(self.folder) / f"layer{layer}" / point / f"seed{self.seed}" / name


def train_bank_from_files(
    models: Sequence[str],
    tokens: str,
    alignment: str,
    reading: Mapping[str, Any],
    bank: Mapping[str, Any],
    tracking: Mapping[str, Any],
    folder: str,
    points: Sequence[str],
    seed: int,
    team: Team = ALONE,
    **settings: Any,
) -> None:
    """`train_bank` from paths and plain settings, as one process hands them to another."""
    checked = Bank.model_validate(bank)
    train_bank(
        checked,
        outputs=Outputs(folder, list(checked.layers), list(points), seed),
        open_stream=lambda: open_stream(models, tokens, alignment, checked.layers, **reading),
        tracking=Tracking.model_validate(tracking),
        team=team,
        **settings,
    )


def train_bank(
    bank: Bank,
    pair: str,
    outputs: Outputs,
    open_stream: Callable[[], ActivationStream],
    threshold_tokens: int,
    tracking: Tracking,
    code: str,
    checkpoint: str,
    memory_gib: float | int | None,
    team: Team = ALONE,
) -> None:
    """Trains the unfinished points of a bank and writes each as soon as those trained with it are done.

    An interrupted training goes on from `checkpoint`, which is removed in the end. Each process of the `team` calls
    this, and trains its share of the points.
    """
    stream = open_stream()
    shared = {**_shared_card(stream, bank, code), "pair": pair, "seed": outputs.seed}
    tasks = [
        _task(stream, bank, outputs, layer, name, point_fingerprint(shared, bank, layer, name, threshold_tokens))
        for layer in outputs.layers
        for name in outputs.points
    ]

    def finish(done: dict[Key, Task], sites: dict[int, Site], statistics: dict[int, SiteStatistics]) -> None:
        crosscoders = {
            (layer, name): _finished(
                sites[layer].trainers[name],
                sites[layer],
                _card(shared, bank, sites[layer], layer, name, task.fingerprint),
            )
            for (layer, name), task in done.items()
        }
        for key, crosscoder in with_thresholds(crosscoders, stream, statistics, threshold_tokens).items():
            layer, name = key
            write_json_lines(outputs.path(layer, name, "training.jsonl"), sites[layer].history[name])
            save_crosscoder(outputs.path(layer, name), crosscoder)

    train_tasks(
        tasks,
        bank,
        outputs.seed,
        stream,
        lambda reading, _statistics: crosscoder_trainers(bank, pair, outputs.seed, reading),
        finish,
        memory_gib,
        Path(checkpoint),
        lambda: Tracker(tracking, f"{pair}/seed{outputs.seed}", Path(outputs.folder)),
        team,
    )


def crosscoder_trainers(bank: Bank, pair: str, seed: int, stream: ActivationStream) -> Make:
    """How each point of a bank begins: from a seed of its own, at the mean activation."""

    def make(layer: int, name: str, statistics: SiteStatistics) -> Trainer:
        point, steps = bank.points[name], total_steps(bank)
        sides = list(point.sides or range(stream.n_sides))
        own_seed = point_seed(seed, pair, layer, name)
        trainer = Trainer(point, bank, len(sides), stream.width, steps, own_seed, stream.device)
        trainer.start_at((statistics.mean * statistics.scale[:, None])[sides])
        return trainer

    return make


def _task(stream: ActivationStream, bank: Bank, outputs: Outputs, layer: int, name: str, expected: str) -> Task:
    files = ("crosscoder.safetensors", "config.json", "training.jsonl")
    sides = len(bank.points[name].sides or range(stream.n_sides))
    return Task(
        layer=layer,
        name=name,
        files=tuple(outputs.path(layer, name, file) for file in files),
        fingerprint=expected,
        weights=crosscoder_weights(bank.latents, sides, stream.width),
        latents=bank.latents,
    )


def bank_settings(bank: Bank) -> dict[str, Any]:
    """What all points of a bank share; which points, pairs and layers it has does not change any of them."""
    return bank.model_dump(mode="json", exclude={"points", "pairs", "layers", "checkpoint_minutes"})


def point_settings(bank: Bank, name: str) -> dict[str, Any]:
    """What one point says of itself; which other seeds it is trained with does not change any of them."""
    return bank.points[name].model_dump(mode="json", exclude={"seeds"})


def point_fingerprint(shared: dict[str, Any], bank: Bank, layer: int, name: str, threshold_tokens: int) -> str:
    """Stands for all that determines the file of a point."""
    point = point_settings(bank, name)
    tokens = threshold_tokens if point["method"] == "batch_topk" else None  # the others have no threshold
    return fingerprint(**shared, layer=layer, point=point, name=name, threshold_tokens=tokens)


def _shared_card(stream: ActivationStream, bank: Bank, code: str) -> dict[str, Any]:
    return {**training_card(stream), "bank": bank_settings(bank), "code": code}


def _card(shared: dict, bank: Bank, site: Site, layer: int, name: str, expected: str) -> dict[str, Any]:
    point = bank.points[name]
    return {
        **shared,
        "layer": layer,
        "name": name,
        "point": point_settings(bank, name),
        "sides": list(point.sides) if point.sides is not None else None,
        "fingerprint": expected,
        **site_card(site, name),
    }


def _finished(trainer: Trainer, site: Site, card: dict[str, Any]) -> Crosscoder:
    sides = list(trainer.point.sides or range(len(site.statistics.scale)))
    return trainer.finish(site.statistics.scale[sides], 0.0, card)


def with_thresholds(
    crosscoders: dict[tuple[int, str], Crosscoder],
    stream: ActivationStream,
    statistics: dict[int, SiteStatistics],
    tokens: int,
) -> dict[tuple[int, str], Crosscoder]:
    """The crosscoders by (layer, name), BatchTopK ones with the threshold at which mean L0 is k on the unmasked
    tokens of the `calibrate` part (at most `tokens` a layer); L1 keeps 0. One pass over the text serves all.

    Raises:
        ModelError: the `calibrate` part has no unmasked token.
    """
    searches = {key: ThresholdSearch(float(c.k), tokens) for key, c in crosscoders.items() if c.k is not None}
    stream = stream.only(sorted({layer for layer, _ in searches}))
    seen = dict.fromkeys((layer for layer, _ in searches), 0)
    for block in stream(stream.table.documents_of("calibrate")) if searches else ():
        if all(count >= tokens for count in seen.values()):
            break
        for layer in seen:
            kept, _ = unmasked(block, layer, statistics[layer], stream.settings)
            rows = block.activations[layer][kept].float()[: tokens - seen[layer]]
            seen[layer] += len(rows)
            for (at, name), search in searches.items():
                if at == layer:
                    search.add(crosscoders[at, name].activations(rows[:, crosscoders[at, name].sides]))
    return {
        key: replace(crosscoder, threshold=searches[key].threshold()) if key in searches else crosscoder
        for key, crosscoder in crosscoders.items()
    }
