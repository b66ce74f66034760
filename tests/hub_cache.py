"""What would the cache of the Hugging Face hub hold, had it been filled on a machine with a network?

`$HF_HOME/hub/models--owner--name/` (and `datasets--owner--name`): files by digest in `blobs`, a folder for each commit
in `snapshots` whose links point to them, and in `refs` the commit of each branch.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def put(home: Path, kind: str, repo: str, files: Path) -> str:
    """Puts a folder's files into the cache as `main` of a repository (`kind`: model or dataset); returns the commit."""
    folder = home / "hub" / f"{kind}s--{repo.replace('/', '--')}"
    commit = hashlib.sha1(repo.encode()).hexdigest()
    for file in sorted(path for path in files.rglob("*") if path.is_file()):
        content = file.read_bytes()
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = folder / "snapshots" / commit / file.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs/main").write_text(commit)
    return commit
