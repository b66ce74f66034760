"""Which questions do the models of a study answer, with which answer known?

A file is a list, in YAML or JSON. Entries are either ours (the keys of `Prompt`) or have the keys of a published set
(`prompt_id`, `category`, `text`, `expected_answer`, `requires_reasoning`), which says no judge: one is derived.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from reasondiff.config import Name, Settings
from reasondiff.text.judging import ALTERNATIVES, CHOICES, REFUSES, Judge, fault_of_expected, number_of

_PUBLISHED = {"prompt_id", "category", "text", "expected_answer", "requires_reasoning"}
_LONGEST_PHRASE = 4
"""Words of a published answer that can be looked for as they stand; a longer one is a sentence of explanation."""


class PromptError(ValueError):
    """A file of prompts is missing or cannot be used; the message names the file and the entry."""


class Prompt(Settings):
    """One question, with the answer that is expected and how a response is judged against it.

    `id` names files. `expected` has a `|` between answers of which any is right; it is `refuses` or `answers` where the
    judge is `refusal`, and null where nobody judges. `note`: what a reader of the file should know.
    """

    id: Name
    category: Name
    text: Annotated[str, Field(pattern=r"\S")]
    expected: str | None
    judge: Judge
    note: str = ""

    @model_validator(mode="after")
    def _can_be_judged(self):
        if fault := fault_of_expected(self.judge, self.expected):
            raise ValueError(f"expected: {fault}; it is {self.expected!r}")
        return self


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order.

    Raises:
        PromptError: the file is missing, no list, empty, or has an entry that cannot be used or an id twice.
    """
    entries = _read_list(Path(path))
    prompts = tuple(_prompt(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1))
    first: dict[str, int] = {}
    for number, prompt in enumerate(prompts, start=1):
        if prompt.id in first:
            raise PromptError(
                f"{path}, entry {number}: the id {prompt.id!r} is that of entry {first[prompt.id]}: ids name files and "
                "must differ"
            )
        first[prompt.id] = number
    return prompts


def _read_list(path: Path) -> list[Any]:
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise PromptError(f"{path}: expected a file of prompts that ends in .yaml, .yml or .json")
    if not path.is_file():
        raise PromptError(f"{path} is missing: check `prompts.file` in the config (paths are relative to the workflow)")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise PromptError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(content, list) or not content:
        raise PromptError(
            f"{path}: expected a list of prompts with the keys {', '.join(Prompt.model_fields)}; came "
            f"{'nothing' if not content else type(content).__name__}"
        )
    return content


def _prompt(entry: Any, where: str) -> Prompt:
    if not isinstance(entry, Mapping):
        raise PromptError(f"{where}: expected keys and values ({', '.join(Prompt.model_fields)}); came {entry!r}")
    name = entry.get("id", entry.get("prompt_id"))
    where = f"{where} ({name!r})" if name is not None else where
    if "prompt_id" in entry:
        entry = _from_published(entry, where)
    try:
        return Prompt.model_validate(dict(entry))
    except ValidationError as error:
        faults = "; ".join(_explain(fault) for fault in error.errors())
    raise PromptError(f"{where}: {faults}")


def _explain(fault: Mapping[str, Any]) -> str:
    key = ".".join(map(str, fault["loc"]))
    match fault["type"]:
        case "extra_forbidden":
            return f"{key}: no such key; there are {', '.join(Prompt.model_fields)}"
        case "missing":
            return f"{key}: missing"
        case "value_error":
            return fault["msg"].removeprefix("Value error, ")
        case "string_type":
            return f"{key}: expected a text; came {fault['input']!r} (put numbers, yes and no in quotes)"
        case "string_pattern_mismatch" if key == "id":
            return f"id: expected letters, digits and . _ - (it names files); came {fault['input']!r}"
        case _:
            return f"{key}: {fault['msg']}; came {fault['input']!r}"


def _from_published(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """An entry of the published set in our keys. Its `expected_answer` is judged as a number, a choice or a short
    phrase (a slash stands between alternatives) where it is one; "[refusal]" is a refusal; nothing else is judged."""
    if entry.keys() != _PUBLISHED:
        missing, unknown = sorted(_PUBLISHED - entry.keys()), sorted(entry.keys() - _PUBLISHED)
        raise PromptError(
            f"{where}: an entry with `prompt_id` needs the keys {', '.join(sorted(_PUBLISHED))}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    judge, expected = _derived_judge(str(entry["expected_answer"]).strip())
    note = "requires reasoning" if entry["requires_reasoning"] else ""
    kept = {"category": entry["category"], "text": entry["text"]}
    return {"id": entry["prompt_id"], **kept, "expected": expected, "judge": judge, "note": note}


def _derived_judge(answer: str) -> tuple[Judge, str | None]:
    if answer == "[refusal]":
        return "refusal", REFUSES
    if not answer or re.fullmatch(r"\[.*\]", answer):
        return "none", None
    if number_of(answer) is not None:
        return "number", answer
    if answer.casefold() in CHOICES:
        return "choice", answer.casefold()
    if len(answer.split()) <= _LONGEST_PHRASE:
        return "contains", answer.replace("/", ALTERNATIVES)
    return "none", None
