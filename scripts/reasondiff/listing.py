"""Which dictionaries and which circuits does a study ask for, and where?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reasondiff.config import Study


class Site(NamedTuple):
    """Where dictionaries of two models meet: one pair, one text, one layer."""

    pair: str
    text: str
    layer: int

    @property
    def folder(self) -> str:
        return f"{self.pair}/{self.text}/layer{self.layer}"


def sites(study: Study) -> dict[Site, list[str]]:
    """{site: names of the banks that train there}."""
    found: dict[Site, list[str]] = {}
    for name, bank in study.banks.items():
        for pair in bank.pairs:
            for text in study.pairs[pair].texts:
                for layer in bank.layers:
                    found.setdefault(Site(pair, text, layer), []).append(name)
    return found


def shows_latents(study: Study, pair: str) -> bool:
    """Whether the latents of a pair's crosscoders get examples, labels and pages: all but those of pairs that are only
    counted, as a null of others."""
    nulls = {null for other in study.pairs.values() for null in other.nulls.values()}
    controls = {other.control for other in study.pairs.values()}
    return pair not in nulls - controls


def tested_sites(study: Study) -> dict[Site, list[str]]:
    """{site: names of banks} where sets of latents are tested for what they do: those of effect pairs with a coupled
    dictionary; none in a study that tests none."""
    if study.evidence.effects is None:
        return {}
    effects = {site: banks for site, banks in sites(study).items() if study.pairs[site.pair].role == "effect"}
    return {site: banks for site, banks in effects.items() if points(study, banks, coupled=True)}


def points(study: Study, banks: Sequence[str], coupled: bool = False) -> list[tuple[str, int]]:
    """(point, seed) of every dictionary of some banks; only those that read two models or more where `coupled`."""
    return [
        (name, seed)
        for bank in banks
        for name, point in study.banks[bank].points.items()
        for seed in point.seeds
        if point.is_coupled or not coupled
    ]


def untrained_point(study: Study, banks: Sequence[str]) -> tuple[str, str] | None:
    """(bank, point) that a dictionary on random weights is trained with: the first coupled BatchTopK one."""
    for bank in banks:
        for name, point in study.banks[bank].points.items():
            if point.method == "batch_topk" and point.is_coupled:
                return bank, name
    return None


def traced_models(study: Study) -> dict[str, str]:
    """{role: model} of the models that graphs are made of."""
    if study.graphs is None:
        return {}
    roles = {"reasoning": study.prompts.reasoning, "base": study.prompts.base}
    return {role: model for role, model in roles.items() if model is not None}


def subjects(study: Study) -> list[tuple[str, int]]:
    """(model, seed of its transcoders) of everything that is traced."""
    return [(model, seed) for model in traced_models(study).values() for seed in study.transcoders.models[model].seeds]
