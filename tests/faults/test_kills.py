"""A job, or Snakemake itself, that is killed at any moment goes on to the same bytes."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import psutil
import pytest
from killing import BANK, EXAMPLES, GRAPHS, LABELS, PATIENCE_SECONDS, SEED, TRANSCODERS, Moment, Work, Workplace, ended

KILLS_OF_PROCESS = {BANK: 4, TRANSCODERS: 3, EXAMPLES: 2, LABELS: 1, GRAPHS: 2}
HEAD_KILLED_IN = (BANK, EXAMPLES, GRAPHS)
assert sum(KILLS_OF_PROCESS.values()) + len(KILLS_OF_PROCESS) + len(HEAD_KILLED_IN) == 20

WENT_ON = "go on from the checkpoint"


def name_of(work: Work) -> str:
    return work.kind.replace(" ", "_")


def chance_of(work: Work, how: str) -> random.Random:
    print(f"REASONDIFF_FAULT_SEED={SEED}")  # shown where a test fails
    return random.Random(f"{SEED}/{work.kind}/{how}")


def came_of(workplace: Workplace, work: Work, moment: Moment) -> str:
    """What is seen of a job that was killed and went on, once it has been checked."""
    assert workplace.is_whole(), f"{work.kind} killed at {moment}, seed {SEED}: {workplace.changed()}"
    assert not workplace.checkpoints(), "a finished training leaves no checkpoint"
    went_on = WENT_ON in workplace.log(work).read_text()
    return "same bytes, from a checkpoint" if went_on else "same bytes"


@pytest.mark.parametrize("work", KILLS_OF_PROCESS, ids=name_of)
def test_a_job_that_is_killed_is_a_failed_one_and_goes_on_to_the_same_bytes(workplace, work, count_fault):
    for moment in earlier_and_earlier(Moment(chance_of(work, "job").random())):
        workplace.lose(work)
        head = workplace.start(work)
        with ended(head):
            in_time = workplace.wait(moment, work, head)
            if in_time and (job := workplace.job_of(head)):
                workplace.remember_script(work, job)
                job.kill()
            _, errors = head.communicate(timeout=PATIENCE_SECONDS)
        if head.returncode != 0:
            break
    assert "Error in rule" in errors, errors[-3000:]
    assert workplace.changed() == []
    workplace.resume(work)
    count_fault(f"SIGKILL of a job: {work.kind}", came_of(workplace, work, moment))


def earlier_and_earlier(moment: Moment) -> Iterator[Moment]:
    """A job may be faster than usual, and then is killed again, sooner."""
    for _ in range(10):
        yield moment
        moment = moment.earlier()
    raise AssertionError("the job always ended before it was killed")


@pytest.mark.parametrize("work", KILLS_OF_PROCESS, ids=name_of)
def test_what_a_killed_process_leaves_is_whole_and_is_gone_on_from(workplace, work, count_fault):
    if work not in workplace.scripts:
        workplace.find_script(work)
    chance, is_training = chance_of(work, "process"), work in (BANK, TRANSCODERS)
    for turn in range(KILLS_OF_PROCESS[work]):
        moment = kill_process(workplace, work, Moment(chance.random(), after_checkpoint=is_training and turn % 2 == 0))
        assert workplace.changed() == []
        workplace.run_process(work)
        seen = came_of(workplace, work, moment)
        assert seen.endswith("from a checkpoint") or not moment.after_checkpoint
        count_fault(f"SIGKILL of a process: {work.kind}", seen)


def kill_process(workplace: Workplace, work: Work, moment: Moment) -> Moment:
    """Loses the files of a job and kills the process that makes them again; returns when."""
    for at in earlier_and_earlier(moment):
        workplace.lose(work)
        process = workplace.start_process(work)
        if workplace.wait(at, work, process):
            process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            break
    return at


@pytest.mark.parametrize("work", HEAD_KILLED_IN, ids=name_of)
def test_a_study_whose_head_is_killed_goes_on_though_its_orphan_writes_beside_it(workplace, work, count_fault):
    for moment in earlier_and_earlier(Moment(chance_of(work, "head").random())):
        workplace.lose(work)
        head = workplace.start(work)
        with ended(head):
            if workplace.wait(moment, work, head):
                orphans = psutil.Process(head.pid).children(recursive=True)
                head.kill()
                assert head.wait() == -signal.SIGKILL
                assert workplace.changed() == []
                workplace.unlock(work)
                workplace.resume(work)
                psutil.wait_procs(orphans, timeout=60)
                break
            head.communicate(timeout=PATIENCE_SECONDS)
    count_fault(f"SIGKILL of the head: {work.kind}", came_of(workplace, work, moment))
