"""Two Snakemakes in one folder: the second is refused, and one that is told not to ask for the lock spoils nothing."""

from __future__ import annotations

import time

from killing import BANK, PATIENCE_SECONDS, Moment, Workplace, ended, runs


def test_a_second_head_is_refused_and_the_first_is_not_disturbed(workplace: Workplace, count_fault):
    workplace.lose(BANK)
    first = workplace.start(BANK)
    with ended(first):
        assert workplace.wait(Moment(0.0), BANK, first)
        second = workplace.snakemake(BANK, "--rerun-incomplete")
        _, errors = first.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode != 0 and "cannot be locked" in second.stderr, second.stderr[-3000:]
    assert first.returncode == 0, errors[-3000:]
    assert workplace.is_whole(), workplace.changed()
    count_fault("second head", "refused by the lock, the first one's bytes the same")


def test_heads_that_ask_for_no_lock_write_the_same_files_whole(workplace: Workplace, count_fault):
    workplace.lose(BANK)
    first, second = (workplace.start(BANK, "--nolock") for _ in range(2))
    with ended(first), ended(second):
        while runs(first) or runs(second):
            assert workplace.changed() == []
            time.sleep(0.1)
    workplace.resume(BANK)
    assert workplace.is_whole(), workplace.changed()
    count_fault("two heads without a lock", "no file ever half, same bytes")
