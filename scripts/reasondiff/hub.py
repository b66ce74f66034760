"""What has the Hugging Face hub under a name, and where is it on this machine?

All of the workflow's contact with the hub is here. A repository is fetched into the hub's own cache (`HF_HOME`), whose
folders are named by commit: what is there is never fetched twice, and is read without a network.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Kind = Literal["model", "dataset"]

ANSWER_SECONDS = 20.0


class HubError(ValueError):
    """A repository of the hub does not exist, cannot be reached, or is not on this machine."""


class UnreachableError(HubError):
    """The hub does not answer: no network, or HF_HUB_OFFLINE is set."""


def is_commit(revision: str | None) -> bool:
    """Whether a revision names one state for ever; a branch or a tag may move."""
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def download_folder(repo: str, revision: str | None, patterns: Sequence[str], kind: Kind = "model") -> Path:
    """The local folder, named by its commit, with the files of a hub repository that fit one of `patterns`.

    Raises:
        HubError: the hub cannot be reached and the files are not in the cache, or it has no such repository.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repo, revision=revision, repo_type=kind, allow_patterns=list(patterns)))
    except (OSError, HFValidationError) as error:
        raise HubError(
            f"the hub repository {repo} ({kind}) at revision {revision} cannot be fetched ({type(error).__name__}). "
            "Check the name and the revision, or download it on a machine with a network (`snakemake fetch_inputs`) "
            "and set HF_HOME to its cache."
        ) from error


def cached_folder(repo: str, revision: str | None, kind: Kind = "model") -> Path | None:
    """Where a repository lies in the cache of this machine, complete or not; None where it does not. Asks nobody."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(OSError, HFValidationError):
        return Path(snapshot_download(repo, revision=revision, repo_type=kind, local_files_only=True))
    return None


def cache_folder() -> Path:
    """Where the hub's files are kept on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def commit_of(repo: str, revision: str | None, kind: Kind = "model") -> str:
    """The commit that a repository is at now; with `revision`, the one that this branch or tag stands for.

    Raises:
        UnreachableError: the hub does not answer.
        HubError: it has no such repository or revision, or does not show it.
    """
    return _ask(repo, revision, kind, with_files=False).sha


def bytes_to_fetch(repo: str, revision: str | None, patterns: Sequence[str], kind: Kind = "model") -> int:
    """How much of a repository is not on this machine yet, of the files that fit one of `patterns`.

    Raises:
        UnreachableError, HubError: as `commit_of`.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import filter_repo_objects

    info = _ask(repo, revision, kind, with_files=True)
    wanted = filter_repo_objects(info.siblings, allow_patterns=list(patterns), key=lambda file: file.rfilename)
    missing = (
        file
        for file in wanted
        if not isinstance(try_to_load_from_cache(repo, file.rfilename, revision=info.sha, repo_type=kind), str)
    )
    return sum(file.size or 0 for file in missing)


def _ask(repo: str, revision: str | None, kind: Kind, with_files: bool) -> Any:
    """What the hub says of a repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    named = f"{repo} ({kind})"
    try:
        return HfApi().repo_info(
            repo, revision=revision, repo_type=kind, files_metadata=with_files, timeout=ANSWER_SECONDS
        )
    except GatedRepoError as error:
        raise HubError(
            f"{named} is behind a form: accept its terms on the hub's page, and log in (`hf auth login`)"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError(
            f"the hub has no {named}, or it is private: check the name, or log in (`hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"{named} has no revision {revision!r}: check the branch, tag or commit") from error
    except OSError as error:
        raise UnreachableError(
            f"the hub cannot be reached to ask for {named} ({type(error).__name__}: {str(error)[:200]}). Run this on a "
            "machine with a network and with HF_HUB_OFFLINE unset"
        ) from error
