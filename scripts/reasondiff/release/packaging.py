"""How does a folder for others come into being, whole or not at all?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from reasondiff.manifest import NAME, sha256, write_manifest


def package(folder: str | Path, files: Mapping[str, Path], card: str) -> None:
    """Fills `folder` with `files` {path inside: artefact}, a README.md with the words of `card` and a manifest of all
    of it; what was there before is replaced. Files are linked where the disk allows it: artefacts are never written in
    place, so a folder keeps what it was packaged with.

    Raises:
        OSError: an artefact is missing or there is no room; then `folder` is what it was before.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a job that was killed
        shutil.rmtree(left)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, source in files.items():
            _link(source, temporary / name)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        write_manifest(temporary / NAME, {"artefacts": _digests(temporary)})
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """The file itself under another name, or a copy on disks that cannot do that; never a symbolic link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(strict=True), target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _digests(folder: Path) -> dict[str, dict[str, int | str]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files
    }
