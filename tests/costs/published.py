"""Which studies do the tests of costs reckon with, and how are they changed?"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import yaml
from running import ROOT

from reasondiff.config import Study, load_study
from reasondiff.costs.sizes import known_sizes
from reasondiff.costs.table import reckon

PUBLISHED = ("deepscaler", "r1_interp")
PROMPTS = 24


def config_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))


def changed(name: str, changes: dict[str, Any]) -> Study:
    """A study with other values, each named by the path of its key (`banks.topk.tokens`)."""
    config = deepcopy(config_of(name))
    for path, value in changes.items():
        *folders, last = path.split(".")
        place = config
        for folder in folders:
            place = place[folder]
        place[last] = value
    return load_study(config)


_RECKONED: dict[str, list[dict[str, Any]]] = {}


def rows_of(study: Study) -> list[dict[str, Any]]:
    """The table of a study; of equal ones it is made once."""
    key = study.model_dump_json()
    if key not in _RECKONED:
        _RECKONED[key] = reckon(study, known_sizes(study), PROMPTS)
    return deepcopy(_RECKONED[key])


def one_row(study: Study, rule: str, what: str = "") -> dict[str, Any]:
    found = [row for row in rows_of(study) if row["rule"] == rule and what in row["what"]]
    assert len(found) == 1, found
    return found[0]


# ------------------------------------------------------------------------------------------------ in docs/studies.md

SHOWN = {
    "jobs": "jobs",
    "gpu_hours_each": "GPU hours of the longest",
    "gpu_hours": "GPU hours in all",
    "disk_gb": "GB kept",
    "scratch_gb": "GB given back",
    "gpu_gib": "GiB of the card",
    "host_gib": "GiB of the host",
    "dollars": "dollars, at most",
}
LEAST_HOURS, LEAST_GB = 0.3, 3.0


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The stages that take most, and the total, as docs/studies.md shows them."""
    kept = [row for row in rows if row["gpu_hours"] >= LEAST_HOURS or row["disk_gb"] >= LEAST_GB or row["dollars"] > 0]
    lines = ["| | " + " | ".join(SHOWN.values()) + " |", "|---|" + "---|" * len(SHOWN)]
    for row in kept:
        name = " ".join(filter(None, [f"`{row['rule']}`", row["what"]])) if row is not rows[-1] else "**all stages**"
        cells = {column: _cell(row[column]) for column in SHOWN}
        if "MORE THAN THE CARD HOLDS" in row["basis"]:
            cells["gpu_gib"] += " (too much)"
        lines.append("| " + " | ".join([name, *cells.values()]) + " |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    if math.isnan(value) or value == 0:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
