"""What stands in the sections on the study as a whole: what was compared and found, costs, provenance?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reasondiff.report.blocks import (
    Paragraph,
    Section,
    figures,
    table,
    words,
)
from reasondiff.report.costs import costs, versions
from reasondiff.report.findings import all_findings
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.wording import FEW, decimals, listed, number


def compared(study: StudyParts, tables: StudyTables) -> Section:
    """Models with their stage, pairs with role and control, text and tokens."""
    models = pd.DataFrame([_model_row(name, study, tables) for name in study.models])
    pairs = pd.DataFrame([_pair_row(name, study) for name in study.pairs])
    model_columns = [words("model", "name"), words("stage", "stage"), words("from", "parent")]
    model_columns += [figures("tokens of training", "tokens", number), figures("optimiser steps", "steps", number)]
    model_columns += [
        figures("layers", "layers", number),
        figures("width", "hidden", number),
        words("asked with", "asked"),
        words("seed", "seed"),
    ]
    pair_columns = [
        words("pair", "name"),
        words("models", "models"),
        words("role", "role"),
        words("control", "control"),
    ]
    pair_columns += [words("tokenizer", "tokenizer"), words("text", "texts"), words("layers studied", "layers")]
    control = (
        "An effect pair is what the study is about; its control is the null of every exclusive count: a model "
        "trained on for "
        "as long, without what the effect pair adds."
    )
    return Section(
        "compared", "What was compared",
        [
            table(f"Models (n = {len(models)}).", models, model_columns),
            table(f"Pairs (n = {len(pairs)}). {control}", pairs, pair_columns),
        ],
    )  # fmt: skip


def _model_row(name: str, study: StudyParts, tables: StudyTables) -> dict[str, Any]:
    settings, info = study.models[name], tables.models.get(name, {})
    stage = settings.stage + (" (format only)" if getattr(settings, "format_only", False) else "")
    origin = getattr(settings, "parent", None)
    if settings.stage == "hub":
        origin = f"{settings.repo} at {info['weights_digest'][:12]}" if info else settings.repo
    row = {"name": name, "stage": stage, "parent": origin}
    row |= {"tokens": getattr(settings, "tokens", float("nan")), "steps": tables.steps.get(name, float("nan"))}
    row |= {"layers": info.get("layers", float("nan")), "hidden": info.get("hidden", float("nan"))}
    return row | {"asked": listed(settings.elicitations), "seed": getattr(settings, "seed", None)}


def _pair_row(name: str, study: StudyParts) -> dict[str, Any]:
    pair = study.pairs[name]
    row = {"name": name, "models": " → ".join(pair.models), "role": pair.role, "control": pair.control or "none"}
    layers = listed(study.studied_layers(name)) or "none"
    return row | {"tokenizer": pair.tokenizer, "texts": listed(pair.texts), "layers": layers}


def found(study: StudyParts, tables: StudyTables) -> Section:
    """The findings, and what kind of thing they are."""
    words_first = "Every sentence is computed from the tables below. An interval is 95 %; “null” is the control pair. "
    words_first += (
        "L1 and BatchTopK dictionaries are told apart because the L1 penalty itself can make latents look exclusive."
    )
    findings = all_findings(study, tables)
    return Section("found", "What was found", [Paragraph(words_first), *findings])


def spent(facts: list[Mapping[str, Any]]) -> Section:
    """Seconds and memory per rule."""
    frame = costs(facts)
    columns = [
        words("rule", "rule"),
        figures("jobs", "jobs", number),
        figures("seconds in all", "seconds", lambda value: decimals(value, 1)),
    ]
    columns += [
        figures("longest job, s", "longest_seconds", lambda value: decimals(value, 1)),
        figures("peak memory, GiB", "peak_memory_gib", lambda value: decimals(value, 2)),
    ]
    total = f"{frame['seconds'].sum():,.0f} seconds of jobs in all; " if len(frame) else ""
    note = f"{total}wall time and peak memory of jobs whose run files were found (n = {len(facts)})."
    return Section("costs", "Costs", [table(note, frame, columns)])


def provenance(study: StudyParts, tables: StudyTables, facts: list[Mapping[str, Any]], config_digest: str) -> Section:
    """What determines the figures: config, code, ids, weights, seeds; and the versions they were made with."""
    rows = [("config", config_digest)]
    rows += [(f"ids of {report['pair']}, {report['text']}", report["ids_digest"]) for report in tables.alignment]
    rows += [(f"weights of {name}", info.get("weights_digest", "")) for name, info in tables.models.items()]
    rows += [
        (f"seed of model {name}", str(model.seed)) for name, model in study.models.items() if hasattr(model, "seed")
    ]
    for name, bank in study.banks.items():
        rows += [(f"seeds of {name}.{point}", listed(settings.seeds)) for point, settings in bank.points.items()]
    if study.transcoders:
        models = study.transcoders.models.items()
        rows += [(f"seeds of transcoders.{name}", listed(settings.seeds)) for name, settings in models]
    rows += [(f"code of {kind}", digest) for kind, digest in _code(tables.cards)]
    rows += [(f"version: {what}", value) for what, value in versions(facts).items()]
    frame = pd.DataFrame(rows, columns=["what", "value"])
    note = (
        f"What determines the figures of study “{study.study}”, and the versions it ran with. Intervals marked "
        f"“{FEW}” had too few units."
    )
    return Section(
        "provenance",
        "Provenance",
        [table(note, frame, [words("of", "what"), words("digest, seed or version", "value", look="mono")])],
    )


def _code(cards: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(kind of file, code hash or hashes) from the cards; files of transcoders apart from others of their name."""
    found: dict[str, set[str]] = {}
    for path, card in cards.items():
        if "code" in card:
            *folders, name = path.split("/")
            kind = f"transcoders, {name}" if "transcoders" in folders else name
            found.setdefault(kind, set()).add(card["code"])
    return [(kind, ", ".join(sorted(hashes))) for kind, hashes in sorted(found.items())]
