"""Which model, text, pair or dictionary does a file of the study belong to?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reasondiff.config import Pair, Transcoders

MODEL = "models/{model}"
TEXT = "text/{text}"
TOKENS = "text/{text}/{tokenizer}"
PAIR_TEXT = "crosscoders/{pair}/{text}"
SITE = "crosscoders/{pair}/{text}/layer{layer}"
DICTIONARY = "crosscoders/{pair}/{text}/layer{layer}/{point}/seed{seed}"
TRANSCODED = "transcoders/{model}/{text}"
TRANSCODER_SET = "transcoders/{model}/{text}/{point}/seed{seed}"
PROMPTS = "prompts"
GRAPHS = "graphs"
GRAPH_COSTS = "graphs/{model}/seed{seed}/costs"
MOTIFS = "motifs"
COMPARISONS = "comparisons"

STUDY_FIGURES = ("lengths", "accuracy", "divergence", "exclusive_counts")
TRANSCODER_FIGURES = ("transcoder_layers", "transcoders_at_once")
SITE_FIGURES = ("norm_difference", "cosines", "scaling")


def names_in(folder: str) -> list[str]:
    """The names in one of the patterns above: `["pair", "text"]` for `PAIR_TEXT`."""
    return re.findall(r"{(\w+)}", folder)


def labels(path: str | Path, folder: str) -> dict[str, Any]:
    """The names that a path says, by the pattern of its folder; layer and seed as integers.

    Raises:
        ValueError: the file lies in another kind of folder.
    """
    expression = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", folder)
    found = re.search(f"(?:^|/){expression}$", Path(path).parent.as_posix())
    if found is None:
        raise ValueError(f"{path} does not lie in a folder {folder}")
    return {name: int(value) if name in ("layer", "seed") else value for name, value in found.groupdict().items()}


def dictionary_of(path: str | Path) -> dict[str, Any]:
    """What a file's path says of its dictionary: `kind` (crosscoder or transcoder), `of` (the pair or the model),
    `text`, `layer` (None for a set of transcoders), `point` and `seed`.

    Raises:
        ValueError: the file lies in no dictionary's folder.
    """
    try:
        said = labels(path, DICTIONARY)
    except ValueError:
        said = labels(path, TRANSCODER_SET)
    kind = "crosscoder" if "pair" in said else "transcoder"
    of = said.get("pair", said.get("model"))
    return {"kind": kind, "of": of, **{name: said.get(name) for name in ("text", "layer", "point", "seed")}}


def joined(tables: Mapping[str, pd.DataFrame], folder: str) -> pd.DataFrame:
    """Tables by path, one below the other, after the columns that their paths say. Empty, with those, for none."""
    parts = []
    for path, table in tables.items():
        facts = labels(path, folder)
        parts.append(table.assign(**facts)[[*facts, *(name for name in table.columns if name not in facts)]])
    parts = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names_in(folder))


def shown_sites(pairs: Mapping[str, Pair], sites: Iterable[str]) -> list[str]:
    """Of the sites `pair/text/layerN` those that get figures of their own: a control appears in the figures of the
    pairs it belongs to, and alone only where no effect pair of that text and layer names it."""
    sites = list(sites)
    effects = [site for site in sites if pairs[site.split("/")[0]].role == "effect"]
    beside = {control_site(pairs, site) for site in effects}
    return [site for site in sites if site in effects or site not in beside]


def control_site(pairs: Mapping[str, Pair], site: str) -> str | None:
    """The control's site for the same text and layer; None for a pair without control, and for no site."""
    if not site:
        return None
    pair, rest = site.split("/", 1)
    control = pairs[pair].control
    return None if control is None else f"{control}/{rest}"


def figures_of(
    pairs: Mapping[str, Pair],
    sites: Iterable[str],
    coupled: Iterable[str],
    transcoders: Transcoders | None,
    has_concepts: bool = False,
) -> dict[str, tuple[str, str]]:
    """{name: (kind, site)} of a study's figures, known from its configuration alone; no site for those of the whole
    study. `coupled` are the sites with crosscoders; `has_concepts`: the study measures known concepts in them."""
    coupled = list(coupled)
    found = {kind: (kind, "") for kind in STUDY_FIGURES}
    if transcoders is not None:
        sweep = ("transcoder_sweep",) if transcoders.sweep else ()
        found |= {kind: (kind, "") for kind in (*sweep, *TRANSCODER_FIGURES)}
    found |= {"label_scores": ("label_scores", "")} if coupled or transcoders is not None else {}
    found |= {"concepts": ("concepts", "")} if coupled and has_concepts else {}
    found |= {figure_name("fidelity", site): ("fidelity", site) for site in sites}
    for site in shown_sites(pairs, coupled):
        found |= {figure_name(kind, site): (kind, site) for kind in SITE_FIGURES}
    return found


def figure_name(kind: str, site: str) -> str:
    """`norm_difference_base-distill_traces_layer3`."""
    return f"{kind}_{site.replace('/', '_')}"
