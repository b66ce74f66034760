"""Is everything on this machine that a study takes from elsewhere?

Models, data sets and ready transcoders of the hub are fetched into its cache; local ones are looked at. Afterwards the
jobs of the study need no network.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reasondiff.config import Study
from reasondiff.dictionaries.ready import find_ready, ready_files
from reasondiff.hub import UnreachableError, bytes_to_fetch, cache_folder, cached_folder
from reasondiff.models.load import MODEL_FILES, describe_model, download_model
from reasondiff.revisions import HubName, hub_names
from reasondiff.store import ArtefactError, existing_parent, file_digest
from reasondiff.text.prompts import read_prompts
from reasondiff.text.sources import SourceError, download_rows, files_of_rows

log = logging.getLogger(__name__)

COLUMNS = ("key", "kind", "source", "revision", "files", "bytes")


def fetch_inputs(study: Study, prompts: str | None) -> pd.DataFrame:
    """One row for each input: its key in the study, kind (model, dataset, local), source (repository or path),
    revision (a commit of the hub, or the digest of what is local), number of files, bytes.

    What is there already is not fetched again. `prompts`: the file of the benchmark prompts.

    Raises:
        ArtefactError: the disk has less room than what is to be fetched takes.
        HubError: the hub cannot be reached and something is not in the cache.
        ModelError, SourceError, PromptError: an input is missing or incomplete.
    """
    names = hub_names(study)
    _refuse_full_disk(study, names)
    rows = [_hub_row(study, name) for name in names] + _local_rows(study)
    if prompts is not None:
        read_prompts(prompts)
        rows.append(_row("prompts.file", "local", prompts, file_digest(prompts), [Path(prompts)]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def settings_at(study: Study, name: HubName) -> Any:
    """The part of a study that names a repository of the hub: a model, a text source, ready transcoders."""
    part = study
    for key in name.place:
        part = part[key] if isinstance(part, dict) else getattr(part, key)
    return part


def wanted_files(study: Study, name: HubName) -> list[str]:
    """The files of a repository that the study reads, as patterns.

    Raises:
        HubError: the card of a data set cannot be fetched.
        SourceError: the data set has no such subset.
    """
    settings = settings_at(study, name)
    if name.kind == "dataset":
        return files_of_rows(settings)
    if name.place[0] == "models":
        return list(MODEL_FILES)
    return ready_files(settings, study.transcoders.models[name.place[2]].layers)


def _refuse_full_disk(study: Study, names: Sequence[HubName]) -> None:
    needed = 0
    for name in names:
        try:
            needed += bytes_to_fetch(name.repo, name.revision, wanted_files(study, name), name.kind)
        except UnreachableError as error:
            log.warning("%s: not asked how large it is (%s)", name.repo, error)
    folder = existing_parent(cache_folder())
    free = shutil.disk_usage(folder).free
    log.info("%.2f GB to fetch, %.2f GB free in %s", needed / 1e9, free / 1e9, folder)
    if needed > free:
        raise ArtefactError(
            f"{needed / 1e9:.1f} GB are to be fetched, and {folder} has {free / 1e9:.1f} GB free: free some space, or "
            "set HF_HOME to a folder on another disk"
        )


def _hub_row(study: Study, name: HubName) -> dict[str, Any]:
    settings = settings_at(study, name)
    if name.kind == "dataset":
        folder = download_rows(settings)
    elif name.place[0] == "models":
        folder = download_model(name.repo, name.revision)
        describe_model(name.place[1], folder, revision=folder.name)  # refuses what is truncated
    else:
        find_ready(settings, study.transcoders.models[name.place[2]].layers)
        folder = cached_folder(name.repo, name.revision)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return _row(name.key, name.kind, name.repo, folder.name, files)


def _local_rows(study: Study) -> list[dict[str, Any]]:
    rows = []
    for name, model in study.models.items():
        if model.stage == "local":
            folder = Path(model.folder)
            files = sorted(path for path in folder.glob("*") if path.is_file())
            rows.append(_row(f"models.{name}", "local", folder, describe_model(name, folder).weights_digest, files))
    for text_name, text in study.text.items():
        for name, source in text.sources.items():
            for file in map(Path, getattr(source, "files", ())):
                if not file.is_file():
                    raise SourceError(f"text source {name!r}: there is no file {file}")
                rows.append(_row(f"text.{text_name}.sources.{name}", "local", file, file_digest(file), [file]))
    return rows


def _row(key: str, kind: str, source: Any, revision: str, files: Sequence[Path]) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in files)
    return dict(zip(COLUMNS, (key, kind, str(source), revision, len(files), size), strict=True))
