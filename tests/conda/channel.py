"""How is a conda channel made where none can be reached: from the Python at hand, repacked, and its pip?"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

PLATFORM = "linux-64"
VERSION = ".".join(map(str, sys.version_info[:3]))
LIBRARY = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
# parts of the standard library that nothing here imports
LEFT_OUT = {"__pycache__", "site-packages", "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}


def build_channel(folder: Path) -> None:
    """Writes the packages `python` and `pip` and the index that a conda client reads."""
    (folder / PLATFORM).mkdir(parents=True)
    (folder / "noarch").mkdir()
    pip_version, pip_files = pip_of_interpreter()
    index = {
        **write_package(folder, "python", VERSION, dict(interpreter_files()), links={"python": f"python{VERSION[:4]}"}),
        **write_package(folder, "pip", pip_version, pip_files, depends=["python"]),
    }
    for platform, packages in ((PLATFORM, index), ("noarch", {})):
        content = {"info": {"subdir": platform}, "packages": packages, "packages.conda": {}, "repodata_version": 1}
        (folder / platform / "repodata.json").write_text(json.dumps(content))


def interpreter_files() -> Iterator[tuple[str, Path]]:
    """(path in the package, path on disk) of the running interpreter: binary, shared library, standard library."""
    base = Path(sys.base_prefix)
    yield f"bin/python{VERSION[:4]}", Path(base, "bin", f"python{VERSION[:4]}").resolve()
    for path in sorted(base.glob("lib/libpython*.so*")):
        yield str(path.relative_to(base)), path
    for path in sorted((base / LIBRARY).rglob("*")):
        parts = path.relative_to(base / LIBRARY).parts
        if path.is_file() and not LEFT_OUT & set(parts) and not parts[0].startswith("config-"):
            yield str(path.relative_to(base)), path


def pip_of_interpreter() -> tuple[str, dict[str, Path]]:
    """Version of pip, and its files. It is not imported: setuptools fails in a process in which pip was."""
    found = distribution("pip")
    packages = Path(found.locate_file(""))
    parts = [packages / "pip", *packages.glob("pip-*.dist-info")]
    files = [path for part in parts for path in sorted(part.rglob("*")) if path.is_file()]
    kept = [path for path in files if "__pycache__" not in path.parts]
    return found.version, {f"{LIBRARY}/site-packages/{path.relative_to(packages)}": path for path in kept}


def write_package(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, Path],
    depends: list[str] | None = None,
    links: dict[str, str] | None = None,
) -> dict[str, dict]:
    """One `.tar.bz2` as conda defines it: the files, and under info/ what they are; returns its entry in the index.
    `links` are further names in bin/."""
    links = {f"bin/{link}": target for link, target in (links or {}).items()}
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": depends or [],
        "subdir": PLATFORM,
        "arch": "x86_64",
        "platform": "linux",
    }
    listed = [
        {
            "_path": place,
            "path_type": "hardlink",
            "sha256": digest(path.read_bytes()),
            "size_in_bytes": path.stat().st_size,
        }
        for place, path in files.items()
    ]
    listed += [{"_path": place, "path_type": "softlink", "sha256": digest(b""), "size_in_bytes": 0} for place in links]
    information = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths": listed, "paths_version": 1}),
        "info/files": "\n".join([*files, *links]),
        "info/about.json": "{}",
    }
    package = folder / PLATFORM / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(package, "w:bz2", compresslevel=1) as archive:
        for place, path in files.items():
            archive.add(path.resolve(), arcname=place)
        for place, target in links.items():
            member = tarfile.TarInfo(place)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        for place, text in information.items():
            member = tarfile.TarInfo(place)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    content = package.read_bytes()
    return {package.name: {**index, "sha256": digest(content), "size": len(content)}}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
