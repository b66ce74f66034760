"""Where does the text come from, and does it have the columns it must have?

Problems come in the schema of OpenR1-Math-220k: `problem`, `generations` (a list), `is_reasoning_complete` and
`correctness_math_verify` (lists as long as `generations`), optionally `answer`, `source`, `family`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from reasondiff.config import HubRows, Source, Split, Text
from reasondiff.hub import HubError, download_folder, is_commit
from reasondiff.text.split import part_of

REQUIRED = ("problem", "generations")
CARD = "README.md"
PER_GENERATION = ("is_reasoning_complete", "correctness_math_verify")
READ = (*REQUIRED, *PER_GENERATION, "answer", "family")
"""Columns of a data set of problems that are read; the others may be several times as large."""


class SourceError(ValueError):
    """A text source is missing, empty, or has other columns than the workflow reads."""


def read_source(name: str, source: Source, split: Split) -> pd.DataFrame:
    """The rows of one source: problems in the OpenR1-Math schema, or plain text in the one column `text`.

    Raises:
        SourceError: a file or column is missing, or there is nothing in it.
    """
    readers = {
        "generated": lambda: _generated_rows(source, split),
        "generated_plain": lambda: _generated_plain(source),
        "hub": lambda: _hub_rows(name, source),
        "files": lambda: _read_files(name, source.files),
        "plain_files": lambda: _plain_rows(name, source),
    }
    rows = readers[source.kind]()
    limit = getattr(source, "rows", None)
    rows = rows if limit is None else rows.head(limit)
    if is_plain(source):
        return _not_empty(name, rows)
    return _checked(name, rows)


def is_plain(source: Source) -> bool:
    """Whether a source has plain text rather than problems."""
    return source.kind in ("generated_plain", "plain_files") or (source.kind == "hub" and source.column is not None)


def _is_list(value: Any) -> bool:
    """Whether a cell holds a list; a string, which has a length as well, is not one."""
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))


def _not_empty(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        raise SourceError(f"text source {name!r} is empty: expected at least one row. Check its files or its filter.")
    return rows.reset_index(drop=True)


def _checked(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with both columns of flags, None in rows that do not say."""
    rows = _not_empty(name, rows)
    missing = [column for column in REQUIRED if column not in rows.columns]
    if missing:
        raise SourceError(
            f"text source {name!r} lacks the column(s) {', '.join(missing)}: expected the OpenR1-Math schema (problem, "
            f"generations, is_reasoning_complete, correctness_math_verify), came: {', '.join(map(str, rows.columns))}."
        )
    _refuse(name, "problem", "a string", [not isinstance(problem, str) for problem in rows["problem"]])
    _refuse(name, "generations", "a list of strings", [not _is_texts(cell) for cell in rows["generations"]])
    for column in PER_GENERATION:
        came = rows[column] if column in rows.columns else [None] * len(rows)
        flags = [cell if _is_list(cell) else None for cell in came]
        pairs = zip(flags, rows["generations"], strict=True)
        differ = [cell is not None and len(cell) != len(texts) for cell, texts in pairs]
        _refuse(name, column, "a list with one entry per generation", differ)
        rows = rows.assign(**{column: pd.Series(flags, index=rows.index, dtype=object)})
    return rows


def _is_texts(cell: Any) -> bool:
    return _is_list(cell) and all(isinstance(text, str) for text in cell)


def _refuse(name: str, column: str, expected: str, faults: list[bool]) -> None:
    if any(faults):
        raise SourceError(
            f"text source {name!r}, row {faults.index(True)}: `{column}` must be {expected} "
            f"({sum(faults)} of {len(faults)} rows have another form)."
        )


def _generated_rows(source: Any, split: Split) -> pd.DataFrame:
    from reasondiff.text.corpus import openr1_rows

    rows = openr1_rows(
        n=source.problems,
        generations=source.generations,
        steps_weights=source.steps,
        wrong_share=source.wrong_share,
        truncated_share=source.truncated_share,
        seed=source.seed,
    )
    return pd.DataFrame(rows)


def _generated_plain(source: Any) -> pd.DataFrame:
    import random

    from reasondiff.text.filler import copying, facts, general

    chooser = random.Random(f"plain {source.seed}")
    return pd.DataFrame({"text": [chooser.choice((general, facts, copying))(chooser) for _ in range(source.documents)]})


def _hub_rows(name: str, source: HubRows) -> pd.DataFrame:
    from datasets import load_dataset

    selected = source.split if source.rows is None else f"{source.split}[:{source.rows}]"
    try:
        # from the files of one commit: asked by name and offline, the library takes any commit that it finds
        rows = load_dataset(str(download_rows(source)), source.subset, split=selected)
    except HubError as error:
        raise SourceError(f"text source {name!r}: {error}") from error
    except (OSError, ValueError) as error:
        raise SourceError(
            f"text source {name!r}: the hub data set {source.repo} at revision {source.revision} has no split "
            f"{selected} of subset {source.subset} that can be read ({type(error).__name__}: {error}). Check the names."
        ) from error
    needed, read = (REQUIRED, READ) if source.column is None else ((source.column,), (source.column,))
    if set(needed) <= set(rows.column_names):
        rows = rows.select_columns([column for column in rows.column_names if column in read])
    frame = rows.to_pandas()
    return frame if source.column is None else _plain_texts(name, frame, source.column)


def download_rows(source: HubRows) -> Path:
    """The local folder, named by its commit, with the files of a hub data set that its subset is made of.

    Raises:
        HubError: the hub cannot be reached and the files are not in the cache.
    """
    return download_folder(source.repo, source.revision, files_of_rows(source), kind="dataset")


def files_of_rows(source: HubRows) -> list[str]:
    """The files of a hub data set that hold its subset, as patterns: as its card lists them; all where it does not.

    Raises:
        HubError: the hub cannot be reached and the card is not in the cache.
        SourceError: the card lists other subsets.
    """
    from huggingface_hub import metadata_load

    card = download_folder(source.repo, source.revision, [CARD], kind="dataset") / CARD
    configs = ((metadata_load(card) if card.is_file() else None) or {}).get("configs", [])
    subset = source.subset or "default"
    wanted = [config for config in configs if config["config_name"] == subset] or (
        configs[:1] if source.subset is None and len(configs) == 1 else []
    )
    if configs and source.subset and not wanted:
        names = ", ".join(config["config_name"] for config in configs)
        raise SourceError(f"the hub data set {source.repo} has no subset {source.subset!r}; it has {names}")
    files = [path for config in wanted for path in _paths(config.get("data_files"))]
    return [CARD, *files] if files else ["*"]


def _paths(data_files: Any) -> list[str]:
    """The paths of a card's `data_files`: one, several, or several for each split."""
    if isinstance(data_files, str):
        return [data_files]
    return [path for entry in data_files or [] for path in _paths(entry["path"] if isinstance(entry, dict) else entry)]


def at_commits(text: Text) -> Text:
    """The text with every source of the hub at the commit that it is at now, whatever branch it names.

    Raises:
        HubError: the hub cannot be reached and the data set is not in the cache.
    """
    plain = text.model_dump()
    for name, source in text.sources.items():
        if source.kind == "hub" and not is_commit(source.revision):
            plain["sources"][name]["revision"] = download_rows(source).name
    return Text.model_validate(plain)


def _read_files(name: str, files: tuple[str, ...]) -> pd.DataFrame:
    return pd.concat([_read_file(name, Path(file)) for file in files], ignore_index=True)


def _read_file(name: str, file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise SourceError(f"text source {name!r}: there is no file {file}. Paths are relative to the working folder.")
    readers = {
        ".parquet": pd.read_parquet,
        ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
        ".txt": lambda path: pd.DataFrame({"text": path.read_text(encoding="utf-8").split("\n")}),
    }
    if file.suffix not in readers:
        raise SourceError(f"text source {name!r}: {file} must end in one of {', '.join(readers)}.")
    try:
        return readers[file.suffix](file)
    except (ValueError, OSError) as error:
        raise SourceError(f"text source {name!r}: {file} cannot be read as {file.suffix} ({error}).") from error


def _plain_rows(name: str, source: Any) -> pd.DataFrame:
    return _plain_texts(name, _read_files(name, source.files), source.column or "text")


def _plain_texts(name: str, rows: pd.DataFrame, column: str) -> pd.DataFrame:
    if column not in rows.columns:
        raise SourceError(
            f"text source {name!r} lacks the column {column!r}: came {', '.join(map(str, rows.columns))}. "
            "Name the column with the text in `column`."
        )
    texts = rows[column].dropna().astype(str)
    return pd.DataFrame({"text": texts[texts.str.strip() != ""]})


def training_filter(split: Split):
    """`keep(problem, family)`: whether a problem may be used to train a model of the tiny chain."""
    return lambda problem, family=None: part_of(problem, split, family) == "train"
