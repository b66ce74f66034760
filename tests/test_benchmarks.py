"""Is the page of the benchmarks what was measured, and does it know every benchmark?"""

from __future__ import annotations

import runpy

import pytest
from running import ROOT

FOLDER = ROOT / "benchmarks"
TOOLS = {"run", "measure", "reference"}  # measure nothing by themselves


@pytest.fixture(scope="module")
def run():
    return runpy.run_path(str(FOLDER / "run.py"))


def test_every_benchmark_is_run_and_has_its_place_on_the_page(run):
    scripts = {path.stem for path in FOLDER.glob("*.py")} - TOOLS
    assert set(run["RUNS"]) == scripts
    page = (FOLDER / "README.md.j2").read_text()
    assert all(f'figures("{name}")' in page for name in scripts)


def test_the_page_is_that_of_the_figures(run):
    assert run["page"]() == (FOLDER / "README.md").read_text()


def test_what_a_benchmark_prints_is_kept_and_a_failed_one_keeps_its_figures(run, tmp_path, monkeypatch, capsys):
    keep = run["run"].__globals__
    monkeypatch.setitem(keep, "HERE", tmp_path)
    monkeypatch.setitem(keep, "FIGURES", tmp_path / "figures")
    monkeypatch.setitem(keep, "RUNS", {"some": [["7"], ["8"]]})
    (tmp_path / "some.py").write_text("import sys\nprint('| ratio |', sys.argv[1])")
    assert run["run"]("some", load=0.0)
    kept = (tmp_path / "figures/some.md").read_text()
    assert "| ratio | 7\n\n| ratio | 8\n" in kept and "other work" not in kept
    (tmp_path / "some.py").write_text("raise SystemExit('no card is visible')")
    assert not run["run"]("some", load=3.0)
    assert (tmp_path / "figures/some.md").read_text() == kept
    assert "not measured: no card is visible" in capsys.readouterr().out
