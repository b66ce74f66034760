"""Does the workflow of GitHub name files, commands and options that exist, and no action that can change under it?"""

from __future__ import annotations

import os
import re
import shlex

import yaml
from running import ROOT, said, snakemake

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
COMMANDS = [line for step in STEPS if "run" in step for line in step["run"].splitlines()]


def command_starting(*words: str) -> list[str]:
    """The words of the one command that starts so."""
    (found,) = [line for line in map(shlex.split, COMMANDS) if line[: len(words)] == list(words)]
    return found


def test_every_action_is_pinned_to_a_commit():
    actions = [step["uses"] for step in STEPS if "uses" in step]
    assert actions and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in actions)


def test_it_may_only_read_and_keeps_no_credentials():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert "secrets." not in (ROOT / ".github/workflows/ci.yml").read_text()


def test_it_runs_the_checks_that_run_anywhere():
    assert command_starting(".ci/run") and os.access(ROOT / ".ci/run", os.X_OK)


def test_its_study_with_conda_has_a_plan(tmp_path):
    command = command_starting("snakemake")
    assert "conda" in command
    shown = [*command[1:], "--dry-run", "--directory", str(tmp_path)]
    # without conda at hand the environments are not asked for
    start = shown.index("--sdm")
    del shown[start : start + 4]
    run = snakemake(*shown, folder=ROOT)
    assert run.returncode == 0 and "write_report" in said(run), said(run)[-2000:]
    page = command_starting("test", "-s")[2]
    assert page in said(run)


def test_files_and_folders_that_it_names_exist():
    install = command_starting("python", "-m", "pip")
    assert (ROOT / install[install.index("--constraint") + 1]).is_file()
    hashed = re.findall(r"hashFiles\('([^']+)'\)", (ROOT / ".github/workflows/ci.yml").read_text())
    assert hashed and all(list(ROOT.glob(pattern)) for pattern in hashed)
    cached = {step["with"]["path"] for step in STEPS if step.get("uses", "").startswith("actions/cache@")}
    snakemakes = command_starting("snakemake")
    assert snakemakes[snakemakes.index("--conda-prefix") + 1] in cached
