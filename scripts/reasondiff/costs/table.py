"""What does a whole study cost, stage by stage, from its config alone?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from reasondiff.config import ModelSize, Study
from reasondiff.costs import banks, circuits, inputs, transcoders
from reasondiff.costs.jobs import CARD_CONTEXT_GIB, LIBRARIES, Job, Reckoned, gib
from reasondiff.costs.sizes import NotKnown
from reasondiff.costs.work import Number, hours

COLUMNS = [
    "rule", "what", "jobs", "passes", "tokens", "gpu_hours_each", "gpu_hours", "core_hours", "disk_gb", "scratch_gb",
    "gpu_gib", "host_gib", "dollars", "basis",
]  # fmt: skip
"""`tokens` are read or written by all jobs, `gpu_hours_each` by the longest job; `disk_gb` stays (10^9 bytes),
`scratch_gb` is given back; `gpu_gib` and `host_gib` are the largest job's. Empty: not reckoned."""
TOTAL = "total"
ADDED = ("jobs", "tokens", "gpu_hours", "core_hours", "disk_gb", "dollars")
LARGEST = ("passes", "gpu_hours_each", "scratch_gb", "gpu_gib", "host_gib")
NOT_KNOWN = "not known: "
STAGES = (
    inputs.texts, inputs.models, inputs.checks, banks.train_banks, banks.judge_sites, transcoders.sweep,
    transcoders.train_transcoders, transcoders.judge_sets, circuits.labels, circuits.answers, circuits.graphs,
    circuits.comparisons,
)  # fmt: skip
UNRECKONED = (
    "train_tokenizer", "copy_tokenizer", "choose_transcoder", "write_viewer", "summarise_study", "draw_figures",
    "write_report",
)  # fmt: skip
"""Rules of a study that take seconds to minutes of a processor and write little."""

Row = dict[str, Any]


def reckon(study: Study, sizes: Mapping[str, ModelSize | None], prompts: int) -> list[Row]:
    """A row (`COLUMNS`) for each kind of job, and their total, from the `sizes` of the study's models (`known_sizes`)
    and the number of its benchmark `prompts`. What is not known is NaN, and the basis says what would make it known."""
    reckoned = Reckoned(study, sizes, prompts)
    kinds: dict[tuple[str, str], list[Job]] = {}
    unknown: dict[str, list[str]] = {}
    for rule, make in itertools.chain.from_iterable(stage(reckoned) for stage in STAGES):
        try:
            job = make()
            kinds.setdefault((rule, job.what), []).append(job)
        except NotKnown as reason:
            unknown.setdefault(rule, []).append(str(reason))
    rows = [_row(rule, jobs, study) for (rule, _what), jobs in kinds.items()]
    rows += [_unknown_row(rule, reasons) for rule, reasons in unknown.items()]
    return [*rows, _total(rows, reckoned)]


def _unknown_row(rule: str, reasons: Sequence[str]) -> Row:
    said = "; ".join(dict.fromkeys(reasons))
    return {
        **dict.fromkeys(COLUMNS, math.nan),
        "rule": rule,
        "what": "",
        "jobs": len(reasons),
        "basis": NOT_KNOWN + said,
    }


def _row(rule: str, jobs: Sequence[Job], study: Study) -> Row:
    first, card = jobs[0], study.cost.card
    is_on_card = any(job.work for job in jobs)
    each = [hours(job.work, card) if job.work and card else math.nan for job in jobs]
    held = gib(max(job.card_bytes for job in jobs))
    host = gib(max(job.host_bytes for job in jobs)) + LIBRARIES[study.device if is_on_card else "cpu"]
    row = {
        "rule": rule,
        "what": first.what,
        "jobs": len(jobs),
        "passes": max(job.passes for job in jobs) if is_on_card else math.nan,
        "tokens": sum(job.tokens for job in jobs) or math.nan,
        "gpu_hours_each": max(each),
        "gpu_hours": sum(each),
        "core_hours": sum(job.core_hours for job in jobs) or math.nan,
        "disk_gb": sum(job.disk_bytes for job in jobs) / 1e9,
        "scratch_gb": max(job.scratch_bytes for job in jobs) / 1e9,
        "gpu_gib": held + CARD_CONTEXT_GIB if is_on_card and study.device == "cuda" else math.nan,
        "host_gib": host if study.device == "cuda" else host + held,
        "dollars": sum(job.dollars for job in jobs),
    }
    return {**row, "basis": "; ".join([first.basis, *_warnings(row, study, is_on_card)])}


def _warnings(row: Row, study: Study, is_on_card: bool) -> Iterator[str]:
    card = study.cost.card
    if card is not None and row["gpu_gib"] > card.memory_gib:
        yield f"MORE THAN THE CARD HOLDS ({card.memory_gib:g} GiB)"
    if card is None and is_on_card:
        yield "hours not reckoned: the study names no card (cost.card)"


def _total(rows: Sequence[Row], reckoned: Reckoned) -> Row:
    """Sums and maxima of what is known; labels cost no more than the study's budget."""
    study = reckoned.study
    left_out = [row["rule"] for row in rows if row["basis"].startswith(NOT_KNOWN)]
    total: Row = {"rule": TOTAL, "what": ""}
    total |= {name: _known(sum, (row[name] for row in rows)) for name in ADDED}
    total |= {name: _known(max, (row[name] for row in rows)) for name in LARGEST}
    if study.labels.provider == "anthropic":
        total["dollars"] = min(total["dollars"], study.labels.anthropic.budget_dollars)
    card = study.cost.card
    on = f"on one {card.name}, nothing of it measured" if card else "no card, so no hours"
    if texts := reckoned.texts_of_unknown_size():
        on += f"; host memory without the ids of {', '.join(texts)}: cost.source_rows does not say its rows"
    total["basis"] = on + (f"; WITHOUT {', '.join(left_out)}" if left_out else "")
    return {name: total[name] for name in COLUMNS}


def _known(combine: Callable[[Iterable[Number]], Number], values: Iterable[Number]) -> Number:
    known = [value for value in values if not math.isnan(value)]
    return combine(known) if known else math.nan


# ------------------------------------------------------------------------------------------------ what jobs ask for


def largest(rows: Sequence[Row], rule: str, column: str) -> Number:
    """The largest known figure of a rule, 0 where there is none."""
    return max((row[column] for row in rows if row["rule"] == rule and not math.isnan(row[column])), default=0.0)
