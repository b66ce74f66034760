"""Which sets of a site's latents are tested, and what comes out?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reasondiff.config import SetEffects
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.spliced_losses import SPLICED_PHASES
from reasondiff.evidence.effects import effect_rows
from reasondiff.evidence.patching import EffectSums
from reasondiff.evidence.sets import NotTestable, matched_random, top_sets
from reasondiff.models.stream import ActivationStream, SiteStatistics


def measure_set_effects(
    stream: ActivationStream,
    layer: int,
    statistics: SiteStatistics,
    crosscoders: Mapping[str, Crosscoder],
    latents: Mapping[str, pd.DataFrame],
    settings: SetEffects,
    min_problems: int,
) -> dict[str, pd.DataFrame]:
    """{crosscoder: table of `effects.effect_rows`} for the crosscoders of one site, in one pass over the text."""
    sets, matched = {}, {}
    for name, table in latents.items():
        sets[name], matched[name] = choose_sets(table, settings)
    sums = EffectSums(stream, layer, statistics, crosscoders, sets).run(settings.tokens)
    return {
        name: effect_rows(
            sums[name],
            list(SPLICED_PHASES),
            matched[name],
            {set_name: len(members) for set_name, members in sets[name].items()},
            settings.bootstrap,
            settings.seed,
            min_problems,
        )
        for name in crosscoders
    }


def choose_sets(
    latents: pd.DataFrame, settings: SetEffects
) -> tuple[dict[str, np.ndarray], dict[str, list[str] | str]]:
    """({name: latents} of the tested sets and of the random ones, {tested set: its random ones, or why it has none}).
    A set without members is not tested."""
    chosen: dict[str, np.ndarray] = {}
    matched: dict[str, list[str] | str] = {}
    for name, members in top_sets(latents, settings.size).items():
        if not len(members):
            continue
        chosen[name] = members
        try:
            drawn = matched_random(latents, members, settings.random_sets, settings.tolerance, settings.seed)
        except NotTestable as reason:
            matched[name] = f"not testable: {reason}"
            continue
        named = {f"{name}.random{number:02d}": other for number, other in enumerate(drawn)}
        chosen |= named
        matched[name] = list(named)
    return chosen, matched
