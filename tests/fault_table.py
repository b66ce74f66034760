"""Which faults were injected in a run of the tests, and what came of them?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

HEAD = ("fault", "what was seen", "injections", "losses")


def rows_of(reports: Iterable) -> list[tuple[str, str, int, int]]:
    """(fault, what was seen, injections, losses) of all tests, equal ones added up."""
    injections: Counter = Counter()
    losses: Counter = Counter()
    for report in reports:
        for name, value in report.user_properties:
            if name == "fault":
                injections[tuple(value[:2])] += value[2]
                losses[tuple(value[:2])] += value[3]
    return [(*key, count, losses[key]) for key, count in injections.items()]


def as_table(rows: list[tuple[str, str, int, int]]) -> list[str]:
    """Lines of a Markdown table, with the sum."""
    total = ("all", "", sum(row[2] for row in rows), sum(row[3] for row in rows))
    lines = [HEAD, ("---", "---", "---:", "---:"), *rows, total]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]
