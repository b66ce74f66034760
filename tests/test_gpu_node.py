"""Do jobs that the profile for a GPU node runs side by side take different cards, and no more jobs than there are?"""

from __future__ import annotations

import re

from running import copy_workflow, said, snakemake

CARDS = 2
SNAKEFILE = f"""\
configfile: "config/smoke.yaml"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        expand("{{job}}.txt", job=range({CARDS})),


rule hold_card:
    output:
        "{{job}}.txt",
    resources:
        mem_mb=memory(100),
        gpu=GPU,
    script:
        "hold.py"
"""
# each job holds its card until the other has one
SCRIPT = """\
import os, time
from pathlib import Path
from reasondiff.job import job

with job(snakemake):
    card = os.environ["CUDA_VISIBLE_DEVICES"]
    Path(f"{snakemake.wildcards.job}.started").touch()
    until = time.monotonic() + 60
    while len(list(Path().glob("*.started"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    Path(snakemake.output[0]).write_text(card)
"""


def test_jobs_that_run_at_once_have_different_cards_and_are_as_many_as_the_cards(tmp_path, monkeypatch):
    folder = copy_workflow(tmp_path / "workflow")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "hold.py").write_text(SCRIPT)
    monkeypatch.setenv("REASONDIFF_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    run = snakemake(
        *("--profile", "workflow/profiles/gpu-node", "--cores", "4", "--config", "device=cuda"),
        folder=folder,
        warm=False,
    )
    assert run.returncode == 0, said(run)[-3000:]
    assert {(folder / f"{job}.txt").read_text() for job in range(CARDS)} == {"0", "1"}
    (limit,) = re.findall(r'Provided resources:.*Resource\("gpu", (\d+)\)', said(run))
    assert int(limit) == CARDS, "else more jobs would start than there are cards, and wait with their memory taken"
