"""What does a reader of a released folder have to know, in the words of a card of the hub?

Every figure on a card is from the study's own tables, with its sample and interval.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCardData, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reasondiff.config import is_trained
from reasondiff.release.contents import ReleasedParts, Repository
from reasondiff.report.wording import decimals, interval, listed, number, percent
from reasondiff.store import read_card, read_json

LIBRARY = "reasondiff"
UNKNOWN = "unknown"
"""The hub's name of a licence that was not said."""
SEE = {"model": "see base model", "text": "see its source"}
OURS = "of the study"
EXCLUSIVE = [f"{owner}_only{end}" for owner in ("reasoning", "base") for end in ("", ".specific")]
"""Rows of the counts that a card shows."""
TAGS = {
    "crosscoders": ["crosscoder", "model-diffing"],
    "transcoders": ["transcoder", "attribution-graphs"],
    "latents": ["latents", "model-diffing"],
    "graphs": ["attribution-graphs", "circuits"],
}


def card_of(
    repository: Repository, study: ReleasedParts, tables: Mapping[str, pd.DataFrame], models: Mapping[str, Mapping]
) -> str:
    """The README.md of a repository: front matter for the hub, then text.

    `tables`: quality, gates, counts, transcoders and label_summary as the report has them, and the summary of graphs
    where there are any; `models`: what `model.json` says, by model.
    """
    facts = {
        "crosscoders": _crosscoders,
        "transcoders": _transcoders,
        "latents": _latents,
        "graphs": _graphs,
    }[repository.content](repository, study, tables)
    named = [name for name in study.models if name in _models_of(repository, study)]
    rows = [_model(name, study, models[name]) for name in named]
    texts = [_text(name, study) for name in _texts_of(repository, study)]
    template = _environment().get_template(f"{repository.content}.md")
    front = _front_matter(repository, study, rows, texts)
    organisation = study.release.organisation or "ORGANISATION"
    body = template.render(
        repository=repository, study=study, models=rows, texts=texts, address=f"{organisation}/{repository.name}",
        licence=study.release.licence, **facts,
    )  # fmt: skip
    return f"---\n{front}\n---\n\n{body.strip()}\n"


@functools.cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown of names and figures; no text of a corpus or a model is on a card
    )  # fmt: skip
    found.filters |= {"decimals": decimals, "percent": percent, "number": number, "listed": listed}
    found.globals["interval"] = interval
    return found


# ------------------------------------------------------------------------------------------------ front matter


def _front_matter(repository: Repository, study: ReleasedParts, models: list[dict], texts: list[dict]) -> str:
    repos = {row["repo"]: row["revision"] for row in models if row["repo"]}
    sources = sorted({source["repo"] for text in texts for source in text["sources"] if source["repo"]})
    constant = {
        "license": study.release.licence or UNKNOWN,
        "tags": [LIBRARY, "interpretability", *TAGS[repository.content]],
        "pretty_name": repository.name,
    }
    if repository.kind == "dataset":
        extra = {"source_datasets": [f"extended|{source}" for source in sources] or ["original"]}
        return DatasetCardData(**constant, **extra, configs=_configs(repository)).to_yaml()
    base = {"base_model": list(repos), "base_model_revisions": repos} if repos else {}
    datasets = {"datasets": sources} if sources else {}
    return ModelCardData(library_name=LIBRARY, **constant, **base, **datasets).to_yaml()


def _configs(repository: Repository) -> list[dict[str, Any]]:
    """How the hub reads the tables of a data set, one config for each table: of one format, since it takes no two, and
    without the tables of single graphs. The first line of a .tsv is its card."""
    paths = [Path(path) for path in repository.files]
    has_parquet = any(path.suffix == ".parquet" for path in paths)
    tables = [path for path in paths if path.suffix == (".parquet" if has_parquet else ".tsv")]
    depths: dict[str, int] = {}
    for path in tables:
        depths[path.name] = min(len(path.parts), depths.get(path.name, len(path.parts)))
    shown = sorted(path for path in tables if has_parquet or len(path.parts) == depths[path.name])
    options = {} if has_parquet else {"sep": "\t", "skiprows": 1}
    return [
        {"config_name": "-".join(path.with_suffix("").parts), "data_files": path.as_posix(), **options}
        for path in shown
    ]


def _models_of(repository: Repository, study: ReleasedParts) -> set[str]:
    if repository.content == "crosscoders":
        return set(study.pairs[repository.of].models)
    if repository.content == "transcoders":
        return {repository.of}
    places = {Path(path).parts[:2] for path in repository.files}
    of_pairs = {model for top, of in places if of in study.pairs for model in study.pairs[of].models}
    return of_pairs | {of for _, of in places if of in study.models}


def _texts_of(repository: Repository, study: ReleasedParts) -> list[str]:
    """Texts whose names are on the paths of a repository; all of them where no path names one."""
    named = {part for path in repository.files for part in Path(path).parts}
    return [name for name in study.text if name in named] or list(study.text)


def _model(name: str, study: ReleasedParts, info: Mapping[str, Any]) -> dict[str, Any]:
    settings = study.models[name]
    return {
        "name": name,
        "repo": getattr(settings, "repo", None),
        "revision": info.get("revision") or getattr(settings, "revision", None),
        "how": {"hub": "from the hub", "local": "from elsewhere"}.get(settings.stage, OURS),
        "licence": study.release.licences.get(name, OURS if is_trained(settings) else SEE["model"]),
        **{key: info[key] for key in ("architecture", "layers", "hidden", "weights_digest")},
    }


def _text(name: str, study: ReleasedParts) -> dict[str, Any]:
    sources = [
        {"name": source, "repo": getattr(one, "repo", None), "revision": getattr(one, "revision", None),
         "how": one.kind.replace("_", " ")}
        for source, one in study.text[name].sources.items()
    ]  # fmt: skip
    is_ours = all(source["how"].startswith("generated") for source in sources)
    licence = study.release.licences.get(name, OURS if is_ours else SEE["text"])
    return {"name": name, "sources": sources, "licence": licence}


# ------------------------------------------------------------------------------------------------ figures


def _crosscoders(repository: Repository, study: ReleasedParts, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    quality, counts = (frame[frame["pair"] == repository.of] for frame in (tables["quality"], tables["counts"]))
    rows = []
    for path, source in repository.files.items():
        if not path.endswith("crosscoder.safetensors"):
            continue
        text, layer, point, seed = Path(path).parts[:4]
        card = read_card(source)
        at = {"text": text, "layer": int(layer[5:]), "point": point, "seed": int(seed[4:])}
        here = _where(quality, at)
        rows.append(
            {
                **at,
                "folder": Path(path).parent.as_posix(),
                "tokens": card.get("tokens_seen"),
                "method": card.get("point", {}).get("method"),
                "models": here.to_dict("records"),
                "counts": _where(counts[counts["group"].isin(EXCLUSIVE)], at).to_dict("records"),
                "gates": _gates(tables["gates"], f"{repository.of}/{text}/{layer}/{point}/{seed}"),
            }
        )
    return {
        "dictionaries": rows,
        "role": study.pairs[repository.of].role,
        "control": study.pairs[repository.of].control,
    }


def _transcoders(repository: Repository, study: ReleasedParts, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    measured = tables["transcoders"]
    measured = measured[(measured["model"] == repository.of) & (measured["phase"] == "all")]
    rows = []
    for path, source in repository.files.items():
        if not path.endswith("sae.safetensors"):
            continue
        text, point, seed, layer = Path(path).parts[:4]
        number_of_layer = layer.split(".")[1]
        at = {"text": text, "point": point, "seed": int(seed[4:])}
        here = _where(measured, at)
        here = here[here["layer"].astype(str) == number_of_layer]
        rows.append(
            {
                **at,
                "layer": int(number_of_layer),
                "folder": Path(path).parent.as_posix(),
                "tokens": read_card(source).get("tokens_seen"),
                "measured": here.to_dict("records"),
                "gates": _gates(tables["gates"], f"{repository.of}/{text}/{point}/{seed}/layer{number_of_layer}"),
            }
        )
    return {"dictionaries": sorted(rows, key=lambda row: (row["text"], row["point"], row["seed"], row["layer"]))}


def _latents(repository: Repository, study: ReleasedParts, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    labels = [
        {"folder": Path(path).parent.as_posix(), **_labelled(read_json(source))}
        for path, source in repository.files.items()
        if Path(path).name == "labels.json"
    ]
    summary = tables["label_summary"]
    wanted = {"task": "detection", "negatives": "all", "split": "all", "group": "all"}
    return {
        "labels": labels,
        "scores": _where(summary, wanted).to_dict("records"),
        "examples": study.release.examples,
        "names": sorted({Path(path).name for path in repository.files}),
    }


def _labelled(content: Mapping[str, Any]) -> dict[str, Any]:
    status = [row["status"] for row in content["latents"]]
    words = {"offline": "patterns found by rule", "anthropic": str(content["model"])}
    return {"by": words[content["provider"]], "chosen": len(status), "labelled": status.count("labelled")}


def _graphs(repository: Repository, study: ReleasedParts, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    summary = tables["summary"]
    by = summary.groupby(["model", "seed", "target"], sort=False)
    rows = [
        {"model": model, "seed": seed, "target": target, "asked": len(some), "traced": int((some["nodes"] > 0).sum()),
         "explains": int(some["explains"].fillna(False).astype(bool).sum()),
         "feature_share": some["feature_share"].median()}
        for (model, seed, target), some in by
    ]  # fmt: skip
    return {"subjects": rows, "prompts": summary["prompt_id"].nunique()}


def _where(frame: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def _gates(gates: pd.DataFrame, of: str) -> dict[str, Any]:
    """How many gates of a dictionary pass, fail or could not be tested, and which fail."""
    mine = gates[gates["of"] == of]
    verdicts = mine["verdict"].value_counts()
    counted = {verdict: int(verdicts.get(verdict, 0)) for verdict in ("pass", "fail", "not testable")}
    failed = [
        f"{row.gate} ({number(row.value)}, {row.rule} {number(row.threshold)})"
        for row in mine[mine["verdict"] == "fail"].itertuples()
    ]
    return {**counted, "asked": len(mine), "failed": failed}
