"""Do two runs of the smoke study from clean give the same bytes?

By default the second run makes a part of the study, in another folder and with the heavy packages imported once for all
jobs. `REASONDIFF_SECOND_RUN=whole` makes all of it; the folder of a workflow in which the smoke study has run already
(on a cluster, in other environments) is compared as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from running import copy_workflow, said, snakemake

from reasondiff.manifest import artefact_names, compare, is_timed
from reasondiff.store import sha256

RESULTS = Path("results/smoke")
SECOND = os.environ.get("REASONDIFF_SECOND_RUN", "part")
_ONE = "crosscoders/base-distill/traces/layer1/btk8/seed0"
PART = (f"{_ONE}/latents.tsv", f"{_ONE}/labels.json", "transcoders/choice.json")
"""What needs text, all stages of models, a bank, transcoders, tables of latents, examples and labels."""


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Path:
    if SECOND not in ("part", "whole"):
        return Path(SECOND)
    folder = copy_workflow(tmp_path_factory.mktemp("second"))
    targets = [str(RESULTS / file) for file in PART] if SECOND == "part" else []
    run = snakemake(*targets, "--configfile", "config/smoke.yaml", "--cores", "2", folder=folder)
    assert run.returncode == 0, said(run)[-4000:]
    return folder


def test_a_second_run_from_clean_gives_the_same_bytes(finished_smoke, second):
    first, again = finished_smoke / RESULTS, second / RESULTS
    names = [name for name in artefact_names(again) if not is_timed(name)]
    kinds = {Path(name).suffix for name in names}
    assert {".safetensors", ".parquet", ".tsv", ".npz", ".json"} <= kinds and len(names) > 50
    assert [name for name in names if sha256(first / name) != sha256(again / name)] == []


@pytest.mark.skipif(SECOND == "part", reason="a part has no manifest: REASONDIFF_SECOND_RUN=whole compares them")
def test_the_manifests_of_two_runs_agree(finished_smoke, second):
    assert compare(finished_smoke / RESULTS / "manifest.json", second / RESULTS / "manifest.json") == []
