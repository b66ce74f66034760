"""What is written for the page on which one walks through attribution graphs?

One page without graphs in it, and beside it a script for each graph and one for the latents of each subject: a page
that is opened from disk may run scripts but not fetch files. The page reads Neuronpedia's JSON, from here or elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reasondiff.graphs.exchange import TYPES, Labels
from reasondiff.graphs.graph import FEATURE
from reasondiff.policy import policy
from reasondiff.store import ArtefactError, as_script

AROUND = 14
"""Tokens shown before a firing, and as many after it."""
ROW = (
    "model", "seed", "prompt_id", "category", "target", "status", "reason", "target_token", "probability",
    "nodes", "edges", "features_pruned", "replacement", "completeness", "feature_share", "coverage", "explains",
    "refused",
)  # fmt: skip


def graph_name(path: str | Path) -> str:
    """What a graph's file is called on the page, by its folder: `distill/seed0/arith_01/answer`."""
    return "/".join(Path(path).parts[-5:-1])


def subject_of(name: str) -> str:
    """Whose latents a graph of this name is made of: `distill_seed0`."""
    return "_".join(name.split("/")[:2])


def subject_of_set(path: str | Path) -> str:
    """`subject_of` the graphs that were made with the transcoders in whose folder a file lies:
    `transcoders/distill/traces/x8k8/seed0/labels.json`."""
    model, _, _, seed = Path(path).parts[-5:-1]
    return f"{model}_{seed}"


def summary_rows(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of summary.tsv by `graph_name`."""
    rows = summary.to_dict("records")
    return {f"{row['model']}/seed{row['seed']:.0f}/{row['prompt_id']}/{row['target']}": row for row in rows}


def index_row(
    name: str, content: Mapping[str, Any], summaries: Mapping[str, Mapping[str, Any]], latents: str | None
) -> dict[str, Any]:
    """A line of the page's list: what summary.tsv says of a graph in Neuronpedia's JSON, None where it says nothing.

    Facts are the graph's own where it has them: a table makes numbers of tokens that look like numbers. `latents`: the
    subject whose latents can be loaded beside the graph (None: there are none).

    Raises:
        ArtefactError: the table has no row of this graph.
    """
    if name not in summaries:
        raise ArtefactError(f"summary.tsv has no row of the graph {name}: delete it and run the same command again")
    known = {**summaries[name], **content["metadata"]["reasondiff"]["facts"]}
    return {"name": name, **{column: _plain(known.get(column)) for column in ROW}, "latents": latents}


def _plain(value: Any) -> Any:
    """A JSON value of a table's cell; numbers with four significant digits."""
    if value is None or pd.isna(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.4g}") if isinstance(value, float) else value


def page(index: Sequence[Mapping[str, Any]], card: Mapping[str, Any]) -> str:
    """The viewer as one HTML text, style and script inside, nothing fetched from elsewhere; `index`: rows of
    `index_row` in the order in which they are listed."""
    template = _environment().get_template("viewer.html")
    return template.render(index=Markup(_json(list(index))), card=Markup(_json(dict(card))))


def graph_script(name: str, content: Mapping[str, Any]) -> str:
    """A graph in Neuronpedia's JSON as the script `data/<name>.js`.

    Raises:
        ValueError: a number in it is not finite.
    """
    return f"attributionGraphs.graph({_json(name)},{_json(content, name)});\n"


def latents_script(subject: str, latents: Mapping[str, Any]) -> str:
    """Labels and examples of a subject's latents (`latents_shown`) as the script `data/latents_<subject>.js`."""
    return f"attributionGraphs.latents({_json(subject)},{_json(latents, subject)});\n"


def latents_in(content: Mapping[str, Any]) -> set[tuple[int, int]]:
    """(layer, latent) of the latents that stand in a graph of our own in Neuronpedia's JSON."""
    ids = [node["node_id"].split("_") for node in content["nodes"] if node["feature_type"] == TYPES[FEATURE]]
    return {(int(layer), int(latent)) for layer, latent, _ in ids}


def latents_shown(
    wanted: Iterable[tuple[int, int]], labels: Labels, examples: pd.DataFrame, most: int
) -> dict[str, dict[str, Any]]:
    """{"layer/latent": {label, examples}} of wanted latents: its words (None without), and the text around
    its strongest firings, at most `most`, as [before, firing token, after]. Latents of which neither is known are left
    out. `examples`: rows of `read_examples` of one kind, the strongest.
    """
    passages: dict[tuple[int, int], list[list[str]]] = {}
    for row in examples.sort_values("place", kind="stable").itertuples():
        found = passages.setdefault((row.layer, row.latent), [])
        if len(found) < most:
            found.append(_passage(row))
    known = {key: {"label": labels.get(key), "examples": passages.get(key, [])} for key in sorted(set(wanted))}
    return {f"{layer}/{latent}": one for (layer, latent), one in known.items() if one["label"] or one["examples"]}


def _passage(row: Any) -> list[str]:
    at = row.position - row.start
    tokens = list(row.tokens)
    return ["".join(tokens[max(0, at - AROUND) : at]), tokens[at], "".join(tokens[at + 1 : at + 1 + AROUND])]


def _json(value: Any, where: str = "the list of graphs") -> str:
    """JSON that can stand in a script whatever text it holds: nothing in it ends the element or a line of script."""
    try:
        return as_script(value)
    except ValueError as error:
        raise ValueError(f"{where} holds a number that is not finite, which the page cannot draw: {error}") from error


@functools.cache
def _environment() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent)
    found = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    found.filters["policy"] = policy
    return found
