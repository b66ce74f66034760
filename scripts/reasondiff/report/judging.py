"""When does a figure pass a gate?"""

from __future__ import annotations

from typing import Any

from reasondiff.report.wording import Number, is_missing

PASS, FAIL, NOT_TESTABLE = "pass", "fail", "not testable"
COLUMNS = ["gate", "of", "model", "rule", "threshold", "value", "n", "n_unit", "verdict", "scale", "remark"]


def judge(value: Number, threshold: Number, rule: str) -> str:
    """`pass`, `fail`, or `not testable` for a missing value. `rule`: at least, at most, or more than the threshold."""
    if is_missing(value):
        return NOT_TESTABLE
    passes = {"at least": value >= threshold, "at most": value <= threshold, "more than": value > threshold}
    return PASS if passes[rule] else FAIL


def gate_row(
    gate: str, of: str, rule: str, threshold: Number, value: Number, n: Number, n_unit: str, **more: str
) -> dict[str, Any]:
    """One row of the table of gates; `more` may name the model, a remark, or a verdict that goes before the rule's."""
    row = {"gate": gate, "of": of, "rule": rule, "threshold": threshold, "value": value, "n": n, "n_unit": n_unit}
    return {**row, "verdict": judge(value, threshold, rule), **more}
