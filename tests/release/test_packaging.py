"""Is a folder for others complete or absent, and does it hold files and nothing that leads elsewhere?"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from reasondiff.manifest import digests, verify
from reasondiff.release import packaging
from reasondiff.release.packaging import package


@pytest.fixture
def files(tmp_path):
    found = {"a.txt": tmp_path / "results/a.txt", "deep/er/b.txt": tmp_path / "results/b.txt"}
    (tmp_path / "results").mkdir()
    for path in found.values():
        path.write_text(path.stem)
    return found


def test_a_folder_holds_its_files_a_card_and_a_manifest_of_all(tmp_path, files):
    folder = tmp_path / "release/one"
    package(folder, files, "# One\n")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        *files, "README.md", "manifest.json"}  # fmt: skip
    assert set(digests(folder / "manifest.json")) == {*files, "README.md"} and verify(folder / "manifest.json") == []
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_the_same_study_gives_the_same_bytes(tmp_path, files):
    for name in ("one", "two"):
        package(tmp_path / name, dict(sorted(files.items(), reverse=name == "two")), "# One\n")
    one, two = ((tmp_path / name / "manifest.json").read_bytes() for name in ("one", "two"))
    assert one == two


def test_large_files_are_not_copied_and_nothing_is_a_symbolic_link(tmp_path, files):
    linked = tmp_path / "results/linked.txt"
    linked.symlink_to(files["a.txt"])
    package(tmp_path / "one", {**files, "c.txt": linked}, "")
    assert os.path.samefile(tmp_path / "one/a.txt", files["a.txt"])
    assert not any(path.is_symlink() for path in (tmp_path / "one").rglob("*"))


def test_on_a_disk_without_links_files_are_copied(tmp_path, files, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(packaging.os, "link", refuse)
    package(tmp_path / "one", files, "")
    assert (tmp_path / "one/deep/er/b.txt").read_text() == "b"
    assert not os.path.samefile(tmp_path / "one/a.txt", files["a.txt"])


def test_an_artefact_that_is_made_again_does_not_change_what_was_packaged(tmp_path, files):
    from reasondiff.store import write_text

    package(tmp_path / "one", files, "")
    write_text(files["a.txt"], "other")
    assert verify(tmp_path / "one/manifest.json") == []


def test_a_folder_that_cannot_be_finished_is_what_it_was_before(tmp_path, files):
    package(tmp_path / "one", files, "before")
    files["deep/er/b.txt"].unlink()
    for name in ("one", "two"):
        with pytest.raises(FileNotFoundError):
            package(tmp_path / name, files, "after")
    assert (tmp_path / "one/README.md").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "results"]


def test_what_a_killed_job_left_is_taken_away_and_an_old_folder_replaced(tmp_path, files):
    (tmp_path / ".one.123.tmp").mkdir()
    package(tmp_path / "one", files, "before")
    package(tmp_path / "one", {"a.txt": files["a.txt"]}, "after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "results"]
    assert set(json.loads((tmp_path / "one/manifest.json").read_text())["artefacts"]) == {"README.md", "a.txt"}
    assert not Path(tmp_path / "one/deep").exists()
