"""At which commit is each repository of the hub that a study names?

A study names models, data sets and ready transcoders of the hub. Their commits stand in the study itself, or in a file
beside it (`revisions:`), which `resolve_revisions` writes: {repository: commit}. A repository named at a branch or tag
stands in that file as `repository@branch`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reasondiff.config import ConfigError, Study
from reasondiff.hub import Kind, commit_of, is_commit
from reasondiff.store import write_text

COMMAND = "snakemake --cores 1 resolve_revisions --configfile <the study's file>"


@dataclass(frozen=True)
class HubName:
    """A repository of the hub as a study names it.

    `place`: where in the study, key by key; `revision` as it is written there: a commit, a branch or tag, or None.
    """

    place: tuple[str, ...]
    repo: str
    kind: Kind
    revision: str | None

    @property
    def key(self) -> str:
        """Its place as a person would write it: `models.base`."""
        return ".".join(self.place)

    @property
    def entry(self) -> str:
        """How the file of revisions calls it."""
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        return is_commit(self.revision)

    def __str__(self) -> str:
        at = "" if self.revision is None else f" at {self.revision!r}, which is a branch or a tag and may move"
        return f"{self.key}: {self.repo} ({self.kind}){'' if self.is_pinned else at}"


def hub_names(study: Study) -> list[HubName]:
    """Everything of the hub that a study names, in the order of its sections."""
    found = [
        HubName(("models", name), model.repo, "model", model.revision)
        for name, model in study.models.items()
        if model.stage == "hub"
    ]
    for text_name, text in study.text.items():
        for name, source in text.sources.items():
            if source.kind == "hub":
                found.append(HubName(("text", text_name, "sources", name), source.repo, "dataset", source.revision))
    for name, model in study.transcoders.models.items() if study.transcoders else ():
        if model.ready and model.ready.repo:
            place = ("transcoders", "models", name, "ready")
            found.append(HubName(place, model.ready.repo, "model", model.ready.revision))
    return found


def unpinned(study: Study) -> list[HubName]:
    """The repositories of a study that have no commit."""
    return [name for name in hub_names(study) if not name.is_pinned]


def pinned(study: Study, revisions: Mapping[str, str]) -> Study:
    """The study with the commits of `revisions` where it names none itself.

    Raises:
        ConfigError: one entry would have to be both a model's commit and a data set's.
    """
    kinds: dict[str, Kind] = {}
    plain: dict[str, Any] = {}
    for name in unpinned(study):
        if kinds.setdefault(name.entry, name.kind) != name.kind:
            raise ConfigError(
                f"{name.key}: {name.repo} is both a model and a data set of this study, and the file of revisions "
                "cannot tell them apart: write their commits as `revision` into the study"
            )
        if name.entry in revisions:
            plain = plain or study.model_dump()
            _at(plain, name.place)["revision"] = revisions[name.entry]
    return Study.model_validate(plain) if plain else study


def resolve_revisions(study: Study) -> dict[str, str]:
    """{entry: commit} of every repository of a study that has no commit, as the hub has them now.

    Raises:
        HubError: the hub cannot be reached, or has no such repository or revision.
    """
    return {name.entry: commit_of(name.repo, name.revision, name.kind) for name in unpinned(study)}


def _at(plain: Any, place: Sequence[str]) -> dict[str, Any]:
    for key in place:
        plain = plain[key]
    return plain


def refuse_unpinned(names: Sequence[str]) -> None:
    """Stops where some repositories (in words) have no commit.

    Raises:
        ConfigError: naming each, and what can be done.
    """
    if names:
        listed = "\n".join(f"  - {name}" for name in names)
        raise ConfigError(
            f"these repositories of the hub have no commit, so that another run could read something else:\n{listed}\n"
            f"Write the commits that they are at now into the file that the study names as `revisions`, with\n"
            f"  {COMMAND}\n"
            "or take whatever the hub has today, with --config unpinned=allow"
        )


# ------------------------------------------------------------------------------------------------ the file


def read_revisions(path: str | Path) -> dict[str, str]:
    """{entry: commit} of a file of revisions; nothing where it has not been written yet.

    Raises:
        ConfigError: the file is no YAML mapping of repositories to commits.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        # as text: an unquoted commit of digits alone would be read as a number
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({error}): {_remedy(path)}") from error
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected lines of the form `owner/name: commit`: {_remedy(path)}")
    for entry, commit in content.items():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@\S+)?", str(entry)) or not isinstance(commit, str):
            raise ConfigError(f"{path}: {str(entry)[:80]!r} is not the name of a repository: {_remedy(path)}")
        if not is_commit(commit):
            raise ConfigError(
                f"{path}: {entry}: expected a commit of 40 hexadecimal digits, came {commit[:80]!r}: {_remedy(path)}"
            )
    return dict(content)


def _remedy(path: Path) -> str:
    return f"mend it, or delete it and write it again with `{COMMAND}`"


def write_revisions(path: str | Path, revisions: Mapping[str, str]) -> None:
    """Writes a file of revisions, whole or not at all, in the order of its entries."""
    heading = f"# The commits that this study's repositories of the hub are read at. Written by\n#   {COMMAND}\n"
    heading += "# which leaves entries that stand here as they are: delete one, or the file, to ask for it again.\n"
    write_text(path, heading + yaml.safe_dump(dict(sorted(revisions.items())), sort_keys=False))
