"""Which artefacts of a study are handed on, and in which repository does each lie?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reasondiff.config import Model, Name, Pair, Release, ReportSettings, Settings, Text

Content = Literal["crosscoders", "transcoders", "latents", "graphs"]
SPLIT = ("crosscoders", "transcoders")
"""Contents that have a repository for each pair or model: dictionaries. The others are one data set each."""


class ReleasedParts(Settings):
    """The sections of a study that the cards speak of."""

    study: str
    models: dict[Name, Model]
    text: dict[Name, Text]
    pairs: dict[Name, Pair]
    release: Release
    report: ReportSettings


@dataclass(frozen=True)
class Repository:
    """A repository of the hub before it is there."""

    name: str
    content: Content
    of: str | None
    """The pair or model; None for a data set."""
    files: dict[str, Path] = field(default_factory=dict)
    """{path inside: artefact}."""

    @property
    def kind(self) -> Literal["model", "dataset"]:
        return "model" if self.content in SPLIT else "dataset"


def repository_name(study: str, content: Content, of: str | None = None) -> str:
    """`tiny-crosscoders-base-distill`, `tiny-graphs`."""
    return "-".join([study, content, *([of] if of else [])])


def repositories(study: str, results: Path, given: Mapping[Content, Iterable[str]]) -> list[Repository]:
    """The repositories of a study, from the artefacts of each content. A dictionary's path starts below its pair or
    model; in a data set paths are those below `results`."""
    found: dict[str, Repository] = {}
    for content, paths in given.items():
        for path in map(Path, paths):
            inside = path.relative_to(results)
            of = inside.parts[1] if content in SPLIT else None
            name = repository_name(study, content, of)
            repository = found.setdefault(name, Repository(name, content, of))
            repository.files["/".join(inside.parts[2:] if of else inside.parts)] = path
    return list(found.values())
