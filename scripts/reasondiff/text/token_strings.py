"""Which string does each id stand for when it is shown by itself?"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from reasondiff.store import ArtefactError


def token_strings(path: str | Path) -> list[str]:
    """The string of every id of a `tokenizer.json`, each decoded alone, special tokens included; an id that has no
    token is an empty string. A token that is part of a character only is shown as U+FFFD.

    Raises:
        ArtefactError: the file is missing or is no tokenizer.
    """
    if not Path(path).is_file():
        raise ArtefactError(f"{path} is missing: run the rule that makes it (`snakemake {path}`), or check the path.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise ArtefactError(f"{path} cannot be read as a tokenizer ({error})") from error
    ids = range(max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1)
    return tokenizer.decode_batch([[number] for number in ids], skip_special_tokens=False)
