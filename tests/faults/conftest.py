"""Injuries to the real workflow: the seed of their moments, the copy they are done to, and the table of what came of
them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from killing import SEED, Workplace  # noqa: E402


def pytest_report_header() -> str:
    return f"moments of faults: REASONDIFF_FAULT_SEED={SEED}"


@pytest.fixture(scope="session")
def one_workplace(finished_smoke, tmp_path_factory) -> Workplace:
    return Workplace(finished_smoke, tmp_path_factory.mktemp("faults"))


@pytest.fixture
def workplace(one_workplace) -> Workplace:
    """A copy of the finished smoke study, one for all tests: each leaves it whole, or fails."""
    one_workplace.restore()
    return one_workplace


@pytest.fixture
def count_fault(record_property):
    """`count_fault(kind, recovered)`: one row more for the table of faults, which ends the run's output."""

    def count(kind: str, recovered: str, injections: int = 1, losses: int = 0) -> None:
        record_property("fault", [kind, recovered, injections, losses])

    return count
