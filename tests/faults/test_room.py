"""A disk that is full, or that may not be written, is named; nothing is lost, and the study goes on when it can."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import RESULTS, TRANSCODERS, Workplace
from running import said

PAGE_BYTES = 4096


@pytest.fixture
def small_disk(workplace) -> Iterator[Path]:
    """The folder of the transcoders on a file system of its own, of a few MiB."""
    folder = workplace.folder / RESULTS / Path(TRANSCODERS.files[0]).parents[1]
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        shutil.rmtree(copy)
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        shutil.rmtree(copy)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def temporary_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.tmp*"))


def test_a_full_disk_is_named_and_what_was_finished_stays(workplace: Workplace, small_disk, count_fault):
    workplace.lose(TRANSCODERS)
    free = os.statvfs(small_disk).f_bfree * PAGE_BYTES
    with open(small_disk / ".ballast", "wb") as ballast:
        ballast.write(bytes(free - 8 * PAGE_BYTES))
    run = workplace.snakemake(TRANSCODERS)
    assert run.returncode != 0
    assert "no room to write" in said(run) and "finished files are kept" in said(run), said(run)[-3000:]
    assert workplace.changed() == [] and temporary_files(small_disk) == []
    (small_disk / ".ballast").unlink()
    workplace.resume(TRANSCODERS)
    assert workplace.is_whole(), workplace.changed()
    count_fault("full disk", "named, same bytes when there was room")


def test_a_folder_that_cannot_be_written_is_named_and_what_was_finished_stays(workplace, small_disk, count_fault):
    """Where an output of the job is there, Snakemake itself looks whether it can be written; else the job finds out."""
    workplace.lose(TRANSCODERS)
    run = run_read_only(workplace, small_disk)
    assert "Write-protected output files" in said(run) and TRANSCODERS.files[0] in said(run), said(run)[-3000:]
    for file in small_disk.glob("layers.*/*"):
        file.unlink()
    run = run_read_only(workplace, small_disk)
    assert "is read-only. Mount it for writing" in said(run) and str(RESULTS) in said(run), said(run)[-3000:]
    workplace.resume(TRANSCODERS)
    assert workplace.is_whole(), workplace.changed()
    count_fault("read-only folder", "named, same bytes when it could be written", injections=2)


def run_read_only(workplace: Workplace, folder: Path) -> subprocess.CompletedProcess:
    """The job fails while its folder is read-only, and nothing there has changed."""
    remount(folder, "ro")
    run = workplace.snakemake(TRANSCODERS)
    remount(folder, "rw")
    assert run.returncode != 0 and workplace.changed() == [] and temporary_files(folder) == []
    return run
