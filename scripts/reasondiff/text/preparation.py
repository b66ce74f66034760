"""Which documents does the study read?

One per complete generation: the problem with its instruction, the think part, the answer part. Correctness is
carried along and never used as a filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reasondiff.config import Split, Text
from reasondiff.text.sources import SourceError, read_source
from reasondiff.text.split import part_of, problem_id

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
COLUMNS = ("source", "problem_id", "part", "family", "prompt", "think", "answer", "expected", "correct", "text")


def split_generation(generation: str) -> tuple[str, str]:
    """(think part, answer part) of a generation, markers removed and blank edges stripped.

    A generation without `</think>` never finished thinking: all of it is the think part.
    """
    body = generation.split(THINK_OPEN, 1)[-1]
    think, _, answer = body.partition(THINK_CLOSE)
    return think.strip(), answer.strip()


def _flag(flags: Any, index: int) -> bool | None:
    """What a source says of one generation; None where it says nothing."""
    return None if flags is None or pd.isna(flags[index]) else bool(flags[index])


UNREAD = {"answers": "think", "traces": "answer", "both": None}
"""The part of a response that a text of this mode does not have."""


def explode(rows: pd.DataFrame, source: str, prefix: str, split: Split, unread: str | None = None) -> pd.DataFrame:
    """One document per complete generation, columns `COLUMNS`; the part `unread` is left empty (of real data sets the
    think parts are nine tenths).

    `is_reasoning_complete` decides what is complete; where the source does not say, a closed think part does.
    """
    documents: list[Mapping[str, Any]] = []
    for row in rows.to_dict("records"):
        family = row.get("family")
        family = family if isinstance(family, str) else None
        shared = {
            "source": source,
            "problem_id": problem_id(row["problem"]),
            "part": part_of(row["problem"], split, family),
            "family": family,
            "prompt": f"{row['problem'].strip()} {prefix}".strip(),
            "expected": None if pd.isna(row.get("answer")) else str(row["answer"]),
            "text": None,
        }
        complete, correct = row["is_reasoning_complete"], row["correctness_math_verify"]
        for index, generation in enumerate(row["generations"]):
            finished = _flag(complete, index)
            if finished or (finished is None and THINK_CLOSE in generation):
                parts = dict(zip(("think", "answer"), split_generation(generation), strict=True))
                if unread is not None:
                    parts[unread] = None
                documents.append({**shared, **parts, "correct": _flag(correct, index)})
    return pd.DataFrame(documents, columns=list(COLUMNS))


def plain_documents(rows: pd.DataFrame, source: str, split: Split) -> pd.DataFrame:
    """One document per plain text; its part goes by the text itself."""
    texts = rows["text"].tolist()
    frame = pd.DataFrame({"text": texts, "source": source}, columns=list(COLUMNS))
    frame["problem_id"] = [problem_id(text) for text in texts]
    frame["part"] = [part_of(text, split) for text in texts]
    return frame


def prepare_text(text: Text, split: Split) -> pd.DataFrame:
    """All documents of a text, in the order of its sources, columns `COLUMNS`.

    Raises:
        SourceError: a source cannot be read, or no generation in it is complete.
    """
    frames = []
    for name, source in text.sources.items():
        rows = read_source(name, source, split)
        if "text" in rows.columns and "problem" not in rows.columns:
            frames.append(plain_documents(rows, name, split))
            continue
        documents = explode(rows, name, text.prefix, split, UNREAD[text.mode])
        if documents.empty:
            raise SourceError(f"text source {name!r}: none of its {len(rows)} rows has a complete generation.")
        frames.append(documents)
    return pd.concat([frame.astype(object) for frame in frames], ignore_index=True)


def held_out_problems(documents: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The distinct problems of the parts `report` and `family` with a known answer: problem_id, problem, answer,
    family, held_out_family (bool). The order is that of the problem ids, which is arbitrary but fixed."""
    asked = documents[documents["part"].isin(["report", "family"]) & documents["expected"].notna()]
    asked = asked.drop_duplicates("problem_id").sort_values("problem_id")
    return pd.DataFrame(
        {
            "problem_id": asked["problem_id"],
            "problem": asked["prompt"].str.removesuffix(prefix).str.strip(),
            "answer": asked["expected"].astype(str),
            "family": asked["family"],
            "held_out_family": asked["part"].eq("family"),
        }
    ).reset_index(drop=True)
