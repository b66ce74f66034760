"""One command says what a published study costs, on a machine that has nothing of it."""

from __future__ import annotations

import math

import pytest
from published import changed, config_of, rows_of
from running import copy_workflow, said, snakemake

from reasondiff.store import read_table


def test_a_study_is_estimated_without_models_text_or_network(tmp_path):
    folder = copy_workflow(tmp_path)
    run = snakemake(
        "--cores", "1", "results/r1_interp/cost.tsv", "--configfile", "config/r1_interp.yaml", folder=folder
    )  # fmt: skip
    assert run.returncode == 0, said(run)[-3000:]
    table = read_table(folder / "results/r1_interp/cost.tsv")
    expected = rows_of(changed("r1_interp", {}))
    assert list(table["rule"]) == [row["rule"] for row in expected]
    for name in ("jobs", "gpu_hours", "disk_gb", "gpu_gib", "host_gib", "dollars"):
        values = [math.nan if math.isnan(row[name]) else pytest.approx(row[name], rel=1e-6) for row in expected]
        assert all(one == two or (one != one and two != two) for one, two in zip(table[name], values, strict=True))
    assert table.attrs["card"]["cost"] == config_of("r1_interp")["cost"]
