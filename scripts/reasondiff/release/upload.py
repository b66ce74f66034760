"""How does a packaged folder get to the hub, and only when it was meant to?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasondiff.config import Release
from reasondiff.manifest import NAME, verify

TOKEN = "HF_TOKEN"


class UploadError(ValueError):
    """Nothing may be uploaded, or not this."""


def require_upload(release: Release) -> str:
    """The token to upload with.

    Raises:
        UploadError: the study does not ask for it, or there is no token in the environment.
    """
    if not release.upload:
        raise UploadError(
            "nothing is uploaded: release.upload is false. Look at what `snakemake package_release` made, then set "
            "release.upload: true (and organisation, licence and private as they should be)."
        )
    if token := os.environ.get(TOKEN, "").strip():
        return token
    raise UploadError(
        f"uploading needs a token that may write, in the environment alone: export {TOKEN}=... "
        "(https://huggingface.co/settings/tokens), or set release.upload: false"
    )


def upload_release(folders: Mapping[str, str], release: Release, api: Any) -> dict[str, str]:
    """Uploads packaged folders {folder: "model" or "dataset"}; returns {repository: address of its commit}. All are
    checked before the first is sent. `api`: a `huggingface_hub.HfApi`.

    Raises:
        UploadError: a folder is not what it was when it was packaged.
    """
    faults = [fault for folder in folders for fault in verify(Path(folder) / NAME)]
    if faults:
        raise UploadError(f"{faults[0]}: package the release again (`snakemake package_release --forcerun`)")
    sent = {}
    for folder, kind in folders.items():
        name = Path(folder).name
        wanted = f"{release.organisation}/{name}" if release.organisation else name
        repo = api.create_repo(repo_id=wanted, repo_type=kind, private=release.private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            ignore_patterns=[".*"],  # Snakemake leaves its time stamp in folders
            commit_message="Packaged by reasondiff",
        )
        sent[repo] = str(commit.commit_url)
    return sent
