"""A job that gets SIGTERM, as a cluster preempts it, saves what it has and ends as a failed one, so that it is started
again and goes on."""

from __future__ import annotations

import signal
import time

from killing import BANK, EXAMPLES, PATIENCE_SECONDS, PLAIN, Workplace, ended, runs

TRAINING_BEGINS = "group 1:"  # in the log; the next thing that a training does is to read its first block


def test_a_preempted_training_is_retried_from_a_checkpoint_of_that_moment(workplace, count_fault):
    """The study's own checkpoints come every 18 seconds, and the training lasts less than one."""
    workplace.lose(BANK)
    head = workplace.start(BANK, "--retries", "1", study=PLAIN)
    with ended(head):
        wait_for(workplace, TRAINING_BEGINS, head)
        workplace.job_of(head).send_signal(signal.SIGTERM)
        _, said = head.communicate(timeout=PATIENCE_SECONDS)
    assert head.returncode == 0, said[-3000:]
    assert "Trying to restart job" in said and "stopped by SIGTERM" in said, said[-3000:]
    assert "go on from the checkpoint" in workplace.log(BANK).read_text()
    assert workplace.is_whole(), workplace.changed()
    count_fault("SIGTERM of a job: crosscoder training", "retried, same bytes, from a checkpoint")


def wait_for(workplace: Workplace, line: str, head) -> None:
    log, deadline = workplace.log(BANK), time.monotonic() + PATIENCE_SECONDS
    while not (log.exists() and line in log.read_text()):
        assert runs(head) and time.monotonic() < deadline, f"{line!r} never came"
        time.sleep(0.002)


def test_a_preempted_job_without_a_checkpoint_fails_at_once_and_says_why(workplace, count_fault):
    if EXAMPLES not in workplace.scripts:
        workplace.find_script(EXAMPLES)
    workplace.lose(EXAMPLES)
    process = workplace.start_process(EXAMPLES)
    while not workplace.is_at_work(EXAMPLES):
        assert runs(process)
        time.sleep(0.002)
    process.terminate()
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 1 and "stopped by SIGTERM" in workplace.log(EXAMPLES).read_text()
    assert workplace.changed() == []
    workplace.run_process(EXAMPLES)
    assert workplace.is_whole(), workplace.changed()
    count_fault("SIGTERM of a process: collection of examples", "failed at once, same bytes when run again")
