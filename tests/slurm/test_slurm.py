"""Does a real SLURM run the study by its profile: cards, partitions, retries, groups, and the same bytes in the end?

The SLURM is of one node and has two cards that are none (one_node.py). The study runs in conda environments at the same
time, made by a shim of conda (tests/conda), where those can be had.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import one_node
import psutil
import pytest
from running import copy_workflow
from shim import NoShim, shim_of_session
from submitting import GROUPS, SMOKE, arguments_of_study, gpus_of_rules, group_of, head, submitted, until_choice

from reasondiff.manifest import compare, manifest_of, write_manifest

RESULTS = Path("results/smoke")
PATIENCE_SECONDS = 1800

WHY_NOT = one_node.reason_not_to_start()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"no SLURM can be started: {WHY_NOT}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with one_node.one_node_slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def conda(tmp_path_factory):
    """The shim, or the reason why there is none."""
    try:
        return shim_of_session(tmp_path_factory)
    except NoShim as reason:
        return reason


@pytest.fixture(scope="module")
def failing(slurm, tmp_path_factory):
    """The small workflow whose jobs fail first: it runs beside the study, since its jobs mostly sleep."""
    folder = copy_workflow(tmp_path_factory.mktemp("failing"))
    shutil.copy(Path(__file__).with_name("failing.smk"), folder)
    cards = ("--set-resources", "two_cards:gpu=2", "--resources", "gpu=2")
    process = head(folder, "-s", "failing.smk", *cards)
    yield folder, process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def study(slurm, conda, failing, tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """A copy of the workflow in which the smoke study has run through SLURM, and {rule: cards it asked for}."""
    folder = copy_workflow(tmp_path_factory.mktemp("study"))
    gpus, variables, environments = gpus_of_rules(folder), {}, []
    if not isinstance(conda, NoShim):
        variables, environments = conda.variables, conda.arguments
    arguments = [*SMOKE, *arguments_of_study(gpus), "--slurm-keep-successful-logs", *environments]
    for part in (until_choice(gpus), []):
        process = head(folder, *arguments, *part, env={**os.environ, "HF_HUB_OFFLINE": "1", **variables})
        try:
            process.wait(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
        assert process.returncode == 0, (folder / "head.log").read_text()[-4000:]
    return folder, gpus


def test_a_machine_with_a_slurm_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(one_node, "CONFIGURED", tmp_path / "slurm.conf")
    (tmp_path / "slurm.conf").write_text("ClusterName=theirs\n")
    with pytest.raises(RuntimeError, match="left alone"), one_node.one_node_slurm(tmp_path / "ours"):
        pass
    assert (tmp_path / "slurm.conf").read_text() == "ClusterName=theirs\n"


def test_what_was_started_is_stopped(tmp_path):
    with one_node.one_node_slurm(tmp_path):
        processes = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        assert len(processes) == 3 and all(map(psutil.pid_exists, processes))
    ended = (psutil.NoSuchProcess, psutil.ZombieProcess)
    for process in processes:  # where nobody reaps them, zombies stay
        with contextlib.suppress(*ended):
            assert psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    assert not one_node.CONFIGURED.is_symlink()


def run_facts(folder: Path) -> list[dict]:
    """What the jobs of the study say of themselves."""
    return [json.loads(path.read_text()) for path in (folder / RESULTS).rglob("*.run.json")]


def test_the_study_comes_to_its_page(study):
    assert "<html" in (study[0] / RESULTS / "report.html").read_text()


def test_the_study_is_the_same_byte_for_byte_as_without_slurm_and_conda(study, finished_smoke, tmp_path):
    for name, folder in (("here", study[0]), ("plain", finished_smoke)):
        write_manifest(tmp_path / f"{name}.json", manifest_of(folder / RESULTS))
    assert compare(tmp_path / "here.json", tmp_path / "plain.json") == []


def test_groups_with_cards_went_to_their_partition_with_one_card_each_and_the_others_to_the_other(study):
    gpus = study[1]
    for group in GROUPS:
        (asked,) = {bool(count) for rule, count in gpus.items() if group_of(rule) == group}
        jobs = submitted(f"rule_{group}_")
        assert jobs, f"no submission of group {group}"
        found = {(job["Partition"], job.get("TresPerJob"), job["JobState"]) for job in jobs}
        assert found == {("gpu", "gres:gpu:1", "COMPLETED") if asked else ("cpu", None, "COMPLETED")}, group


def test_a_rule_alone_went_to_the_partition_of_its_kind(study):
    assert [job["Partition"] for job in submitted("rule_choose_transcoder")] == ["cpu"]


def test_each_gpu_job_saw_one_card_and_no_other_job_saw_any(study):
    folder, gpus = study
    seen = {bool(gpus[facts["rule"]]): set() for facts in run_facts(folder)}
    for facts in run_facts(folder):
        seen[bool(gpus[facts["rule"]])].add(facts["device"].split(" ")[0])
    assert seen == {True: {"cuda:0", "cuda:1"}, False: {"cpu"}}


def test_jobs_ran_in_environments_made_by_a_shim_of_conda(study, conda):
    if isinstance(conda, NoShim):
        pytest.skip(f"SLURM ran the study without conda environments: {conda}")
    logs = [*(study[0] / ".snakemake/slurm_logs").rglob("*.log"), study[0] / "head.log"]
    said = "\n".join(path.read_text() for path in logs)
    for environment in conda.environments().values():
        assert f"Activating conda environment: {os.path.relpath(environment, study[0])}" in said


# ------------------------------------------------------------------------------------------- what a cluster does


@pytest.fixture(scope="module")
def ended(failing) -> Path:
    folder, process = failing
    assert process.wait(timeout=PATIENCE_SECONDS) == 0, (folder / "head.log").read_text()[-4000:]
    return folder


def test_a_job_killed_for_memory_is_submitted_again_with_more(ended):
    first, second = submitted("rule_hungry")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("1000M", "2000M")
    assert "exceeded memory limit" in Path(first["StdOut"]).read_text().lower()
    assert (ended / "hungry.txt").read_text().split() == ["2000"]


def test_a_job_that_ran_out_of_time_is_submitted_again_with_longer(ended):
    first, second, *third = submitted("rule_slow")  # a machine that is busy starts jobs so slowly that two are too few
    assert (first["JobState"], first["TimeLimit"], second["TimeLimit"]) == ("TIMEOUT", "00:01:00", "00:02:00")
    assert [*third, second][0]["JobState"] == "COMPLETED"
    assert (ended / "slow.txt").read_text().split() == [str(2 + len(third))]


def test_a_job_gets_two_cards_when_the_submission_may_have_them(ended):
    (job,) = submitted("rule_two_cards")
    assert (job["Partition"], job["TresPerJob"]) == ("gpu", "gres:gpu:2")
    assert (ended / "two_cards.txt").read_text().split() == ["0,1"]
