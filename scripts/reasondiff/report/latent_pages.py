"""What does the latent browser show of each latent that was to be labelled?

A page of latents is one block of JSON that `browser.js` reads. Token strings stand in it once and are referred to by
number, activations only where the latent fires: some 5 kB a latent. What grows beyond the report's limit goes to a
folder of pages beside it, one for each dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reasondiff.latents.counts import DICTIONARY
from reasondiff.latents.example_table import FIRING, read_examples
from reasondiff.latents.verdicts import verdicts
from reasondiff.report import sites
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import is_missing
from reasondiff.store import ArtefactError, read_card, read_json

LIMIT_BYTES = 15_000_000
"""Of the whole report; with more, the latents get pages of their own."""
FOLDER = "report/latents"
"""Of these pages, seen from the report."""
KINDS = ("examples", "firing", "logits", "labels")
MEASURES = {"offline": "pattern fit", "anthropic": "interpretability"}
"""What the balanced accuracy of a label says, by who wrote the label and judged it."""

OUTCOMES = ("rate_correct", "rate_incorrect", "traces_correct", "traces_incorrect")
SCORE_COLUMNS = (
    "task", "negatives", "control", "balanced_accuracy", "low", "high", "n_positive", "n_negative", "n_unanswered",
)  # fmt: skip


@dataclass(frozen=True)
class PageFiles:
    """Paths of what the browser needs of one dictionary; they lie in one folder."""

    examples: str
    firing: str
    logits: str
    labels: str


@dataclass(frozen=True)
class Browsed:
    """The latents of one dictionary (a crosscoder, or a model's set of transcoders) as plain data."""

    name: str
    """`base-distill-traces-layer3-btk24-seed0`; its page beside the report is called so."""
    title: str
    facts: Mapping[str, Any]
    latents: Sequence[Mapping[str, Any]]


def page_files(paths: Mapping[str, str | Sequence[str]]) -> list[PageFiles]:
    """The files of each dictionary from lists by kind, `pages_examples` and so on, in the order of the labels.

    Raises:
        ArtefactError: a dictionary lacks one of them.
    """
    lists = {kind: paths.get(f"pages_{kind}", []) for kind in KINDS}
    lists = {kind: [found] if isinstance(found, str) else list(found) for kind, found in lists.items()}
    by_folder = {kind: {Path(path).parent: str(path) for path in found} for kind, found in lists.items()}
    folders = list(by_folder["labels"])
    for kind, found in by_folder.items():
        if odd := sorted(str(folder) for folder in set(found) ^ set(folders)):
            raise ArtefactError(
                f"pages of latents need {', '.join(KINDS)} of each dictionary; {odd[0]} has no "
                f"{kind if kind != 'labels' and Path(odd[0]) in folders else 'labels'}"
            )
    return [PageFiles(**{kind: by_folder[kind][folder] for kind in KINDS}) for folder in folders]


def browsed(files: PageFiles, study: StudyParts, tables: StudyTables) -> Browsed:
    """Everything the browser shows of the latents that `labels.json` names, in its order.

    Raises:
        ArtefactError: a file is missing or broken, or lacks a latent that was labelled.
    """
    labels, place = read_json(files.labels), sites.dictionary_of(files.labels)
    wanted = [(row["layer"], row["latent"]) for row in labels["latents"]]
    facts = _facts(place, labels, files.firing, study)
    firing = _rows(files.firing, wanted)
    if lost := [key for key in wanted if key not in firing]:
        raise ArtefactError(
            f"{files.labels} names latent {lost[0][1]} of layer {lost[0][0]}, which {files.firing} lacks: delete the "
            "older of the two and run the same command again"
        )
    if any(len(rows[0]["histogram"]) != len(facts["edges"]) + 1 for rows in firing.values()):
        raise ArtefactError(f"{files.firing}: a histogram has one bin more than edges, {len(facts['edges'])} came")
    logits, owned = _rows(files.logits, wanted), _ownership(place, wanted, tables)
    scores, examples = _scores(place, tables), _examples(files.examples, wanted)
    latents = []
    for row in labels["latents"]:
        key = (row["layer"], row["latent"])
        said = {name: row[name] for name in ("layer", "latent", "tag", "why", "status", "label", "explanation")}
        latents.append(
            {
                "id": latent_id(place, *key, study),
                **said,
                "reason": row["reason"],
                **_fires(firing[key][0], facts["phases"]),
                "owner": owned.get(key),
                "logits": [_logits(one) for one in logits.get(key, [])],
                "scores": scores.get(key, []),
                "examples": examples.get(key, []),
            }
        )
    folder = Path(files.labels).parent.as_posix()
    name = folder[folder.rindex(place["kind"] + "s/") :].split("/", 1)[1].replace("/", "-")
    return Browsed(name, facts["title"], facts, latents)


def latent_id(place: Mapping[str, Any], layer: int, latent: int, study: StudyParts) -> str:
    """What a link to the latent ends in: `latent-base-distill-3-btk24-0-17`, with the text where there are several."""
    text = [place["text"]] if len(study.text) > 1 else []
    return "-".join(map(str, ["latent", place["of"], *text, layer, place["point"], place["seed"], latent]))


# ------------------------------------------------------------------------------------------------ of a dictionary


def _facts(place: Mapping[str, Any], labels: Mapping, firing: str, study: StudyParts) -> dict[str, Any]:
    """What is said once for all latents of a dictionary; phases in the order of the table of firings."""
    card = read_card(firing)
    pair = study.pairs[place["of"]] if place["kind"] == "crosscoder" else None
    layer = "" if place["layer"] is None else f"layer {place['layer']}, "
    text = f"text {place['text']}, " if len(study.text) > 1 else ""
    role = " (control)" if pair is not None and pair.role != "effect" else ""
    phases = [name.removeprefix("rate_") for name in pq.read_schema(firing).names if name.startswith("rate_")]
    phases = [phase for phase in phases if f"rate_{phase}" not in OUTCOMES and card[f"tokens_{phase}"]]
    return {
        **place,
        "title": f"{place['of']}{role}, {text}{layer}{place['point']}, seed {place['seed']}"
        + (", transcoders" if pair is None else ""),
        "models": [pair.models[0], pair.models[-1]] if pair else [place["of"]],
        "provider": labels["provider"],
        "model": labels["model"],
        "measure": MEASURES[labels["provider"]],
        "edges": [short(edge) for edge in card["histogram_edges"]],
        "phases": phases,
        "tokens": card["tokens"],
        "tokens_by_phase": [card[f"tokens_{phase}"] for phase in phases],
        "traces": [card["traces_correct"], card["traces_incorrect"]],
    }


def _rows(path: str, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Rows of a Parquet table by (layer, latent), only of the wanted ones."""
    wanted = set(wanted)
    numbers = sorted({latent for _, latent in wanted}) or [-1]
    try:
        rows = pq.read_table(path, filters=[("latent", "in", numbers)]).to_pylist()
    except Exception as error:
        raise ArtefactError(f"{path} cannot be read ({error}). Delete it and run the same command again.") from error
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        if (key := (row["layer"], row["latent"])) in wanted:
            found.setdefault(key, []).append(row)
    return found


def _fires(row: Mapping[str, Any], phases: Sequence[str]) -> dict[str, Any]:
    """How often and how strongly a latent fires, and its neighbour (None: it has none)."""
    neighbour = None if row["neighbour"] < 0 else [row["neighbour"], short(row["neighbour_cosine"])]
    return {
        "firings": row["firings"],
        "rate": short(row["rate"]),
        "rates": [short(row[f"rate_{phase}"]) for phase in phases],
        "outcomes": [short(row[name]) for name in OUTCOMES],
        "mean": short(row["mean_activation"]),
        "max": short(row["max_activation"]),
        "histogram": list(row["histogram"]),
        "neighbour": neighbour,
    }


def _logits(row: Mapping[str, Any]) -> dict[str, Any]:
    ends = {name: list(row[name]) for name in ("raised", "lowered")}
    by = {f"{name}_by": [short(value) for value in row[f"{name}_by"]] for name in ("raised", "lowered")}
    return {"model": row["model"], **ends, **by}


def _ownership(place: Mapping[str, Any], wanted: Iterable[tuple[int, int]], tables: StudyTables) -> dict:
    """What the latent table says of whose a latent is; nothing for transcoders, which read one model."""
    if place["kind"] != "crosscoder":
        return {}
    rows, values = tables.latents, [place["of"], *(place[name] for name in DICTIONARY[1:])]
    for column, value in zip(DICTIONARY, values, strict=True):
        rows = rows[rows[column] == value]
    known = rows.set_index("latent") if len(rows) else rows
    if lost := [latent for _, latent in wanted if latent not in known.index]:
        raise ArtefactError(f"no latent table of {place['of']}, {place['point']} holds latent {lost[0]}")
    rows = rows[rows["latent"].isin([latent for _, latent in wanted])] if len(rows) else rows
    verdict = verdicts(rows) if len(rows) else []
    return {
        (place["layer"], row.latent): _owned(row, said) for row, said in zip(rows.itertuples(), verdict, strict=True)
    }


def _owned(row: Any, verdict: str) -> dict[str, Any]:
    sides = sorted(name for name in row._fields if name.startswith("decoder_norm_"))
    with_ends = {
        name: [short(getattr(row, f"{name}{end}")) for end in ("", "_low", "_high")]
        for name in ("nu_reconstruction", "nu_error")
    }
    return {
        "delta": short(row.delta),
        "norms": [short(getattr(row, name)) for name in (sides[0], sides[-1])],
        **with_ends,
        "auroc": [short(row.auroc_owner), short(row.auroc_other)],
        "verdict": verdict,
        "template": bool(row.template),
    }


def _scores(place: Mapping[str, Any], tables: StudyTables) -> dict[tuple[int, int], list[list[Any]]]:
    """Rows of `SCORE_COLUMNS` by (layer, latent)."""
    of_pair = place["kind"] == "crosscoder"
    rows = tables.label_scores if of_pair else tables.transcoder_label_scores
    where = {"pair" if of_pair else "model": place["of"], **{name: place[name] for name in ("text", "point", "seed")}}
    for column, value in where.items():
        rows = rows[rows[column] == value]
    found: dict[tuple[int, int], list[list[Any]]] = {}
    for row in rows.itertuples():
        shown = [getattr(row, name) for name in SCORE_COLUMNS]
        shown = [value if isinstance(value, str) else short(value) for value in shown]
        found.setdefault((int(row.layer), int(row.latent)), []).append(shown)
    return found


def _examples(path: str, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The windows of the part `choose`: those a labeller may see. Strongest first, then quantiles from the top."""
    frame = read_examples(path, list(wanted), parts=["choose"], kinds=FIRING)
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        found.setdefault((row["layer"], row["latent"]), []).append(_example(row))
    return {key: sorted(examples, key=_from_the_top) for key, examples in found.items()}


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    fires = {place: short(value) for place, value in enumerate(row["activations"]) if value > 0}
    correct = None if is_missing(row["correct"]) else bool(row["correct"])
    return {
        "kind": row["kind"],
        "place": row["place"],
        "phase": row["phase"],
        "value": short(row["value"]),
        "correct": correct,
        "document": row["document"],
        "position": row["position"],
        "at": row["position"] - row["start"],
        "tokens": list(row["tokens"]),
        "fires": fires,
    }


def _from_the_top(example: Mapping[str, Any]) -> tuple[bool, int]:
    is_quantile = example["kind"] == "quantile"
    return is_quantile, -example["place"] if is_quantile else example["place"]


def short(value: Any) -> float | int | None:
    """A number with three significant digits (whole ones as they are); None for nothing."""
    if is_missing(value):
        return None
    number = float(value)
    return int(number) if number.is_integer() else float(f"{number:.3g}")


# ------------------------------------------------------------------------------------------------ the block of data


def packed(dictionaries: Sequence[Browsed]) -> dict[str, Any]:
    """What one page holds: `strings` (each token once), `dictionaries`, `latents` (`of`: index of the dictionary).

    An example is [is quantile, place, phase, value, correct, document, position, index of that token in the window,
    [strings of the tokens], [index, activation, index, activation, ...]].
    """
    numbers: dict[str, int] = {}

    def refer(tokens: Iterable[str]) -> list[int]:
        return [numbers.setdefault(token, len(numbers)) for token in tokens]

    latents = []
    for of, dictionary in enumerate(dictionaries):
        for latent in dictionary.latents:
            logits = [{**one, **{end: refer(one[end]) for end in ("raised", "lowered")}} for one in latent["logits"]]
            examples = [_packed(example, refer) for example in latent["examples"]]
            latents.append({**latent, "of": of, "logits": logits, "examples": examples})
    facts = [dict(dictionary.facts) for dictionary in dictionaries]
    return {"strings": list(numbers), "dictionaries": facts, "latents": latents}


def _packed(example: Mapping[str, Any], refer: Any) -> list[Any]:
    constant = [example[name] for name in ("place", "phase", "value", "correct", "document", "position", "at")]
    fires = [number for pair in example["fires"].items() for number in pair]
    return [int(example["kind"] == "quantile"), *constant, refer(example["tokens"]), fires]


def n_latents(dictionaries: Iterable[Browsed]) -> int:
    return sum(len(dictionary.latents) for dictionary in dictionaries)
