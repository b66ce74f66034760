r"""Which tokens of the responses are explained?

A target is one token that a model is about to say, in one context. A context is the ids that the model read and wrote:
those of the prompt, as it was asked, and the response up to the target. Nothing is tokenised again.

`prompt`     the first token of the reasoning model's greedy response.
`answer`     of the same response, the token with the first visible character of what the last complete `\boxed{...}`
             after the think phase holds (setting `answer_target: boxed`), or of all that follows the think phase
             (`first`). Where a token holds that character and the brace before it, the context ends before both.
`think`      of the same response, a token of the think phase. `think_target: matched_entropy`: the one before which
             the model is most nearly as uncertain as before the answer target, the last of several, among those whose
             context is at least `think_context_share` as long as the answer's; the first and last three do not count.
             `middle`: the middle one.
`correct`,   the answer targets of two *sampled* responses of the reasoning model to the prompt, one judged correct and
`incorrect`  one not, both with a closed think phase and an answer that could be read. Of all such couples it is the one
             whose contexts differ least in length; of several the first, by the number of the correct response, then
             of the other.
`own`        the answer target of the base's own greedy response. Asked for a solution, its answer is the number after
             the last "answer is"; asked directly, its first token.

Source: docs/methods.md §10.
"""

from __future__ import annotations

import bisect
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from reasondiff.config import Prompts
from reasondiff.graphs.graph import FORCED, PHASES
from reasondiff.models.load import ModelInfo, load_model, load_tokenizer
from reasondiff.store import ArtefactError, read_table
from reasondiff.text.answers import boxed_answer, stated_answer

log = logging.getLogger(__name__)

EDGE = 3
"""Tokens at either end of a think phase that are no `think` target: they open and close it in set phrases."""
_ROWS_AT_ONCE = 256
"""Positions whose distributions are held in memory at a time."""


@dataclass(frozen=True)
class Target:
    """One token that a model is about to say, or the reason why a prompt has no such target."""

    prompt_id: str
    category: str
    target: str
    """A key of `PHASES`."""
    phase: str
    model: str
    """Whose response it stands in; empty where the study names no such model."""
    decoding: str
    """`greedy` or `sampled`."""
    sample: int
    """Number of the response among those of its decoding; -1 where there is none."""
    ids: tuple[int, ...]
    """The context: the target is said after the last of them."""
    target_id: int
    """-1 where there is no target."""
    target_token: str
    probability: float
    """Of the target, by `model`, from 0 to 1."""
    entropy: float
    """Of the next token, by `model`, in nats."""
    rank: int
    """Tokens that `model` finds more probable than the target."""
    reason: str | None
    """Why there is no such target; None where there is one."""


class TargetError(ValueError):
    """No targets can be chosen: responses are missing, or the base does not know their tokens."""


COLUMNS = [one.name for one in fields(Target)]

Place = int | str
"""Index of a token in a response, or why there is no such token."""


@dataclass(frozen=True)
class Reading:
    """What a model expects at each token of a response, before it reads that token."""

    probability: Float[np.ndarray, " token"]
    """Of the token that stands there, from 0 to 1."""
    entropy: Float[np.ndarray, " token"]
    """In nats."""
    rank: Int[np.ndarray, " token"]
    """Tokens that are more probable than the one that stands there."""


def read_targets(path: str | Path) -> list[Target]:
    """The rows of a table of targets, those without a target among them.

    Raises:
        ArtefactError: the file is missing, broken, or lacks a column.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ArtefactError(f"{path} lacks the columns {', '.join(missing)}: delete it and run again")
    return [Target(**_plain(row)) for row in table[COLUMNS].to_dict("records")]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table in the types of `Target`."""
    numbers = {name: int(row[name]) for name in ("sample", "target_id", "rank")}
    reason = row["reason"] if isinstance(row["reason"], str) else None
    return {**row, **numbers, "ids": tuple(int(one) for one in row["ids"]), "reason": reason}


# ------------------------------------------------------------------------------------------------------- choosing


def choose_targets(
    responses: pd.DataFrame, infos: Iterable[ModelInfo], settings: Prompts, device: str, dtype: str
) -> pd.DataFrame:
    """The targets of every prompt, one row for each key of `PHASES`, in the order of the prompts; columns of `Target`.

    `responses` is the table of `models.answering`, `infos` the models it is of. A prompt without some target keeps its
    row: no ids, `target_id` -1 and the reason.

    Raises:
        TargetError: a model was not asked, has no greedy response to a prompt, or (the base) lacks an id of a context.
    """
    known = {info.name: info for info in infos}
    _refuse_unasked(known, settings)
    chosen = _of_reasoning_model(_opened(known, settings.reasoning, settings, device, dtype), responses)
    if settings.base is None:
        chosen += [_none(row, "own", "", "the study names no base model for its prompts") for row in _prompts(chosen)]
    else:
        _refuse_foreign_ids(chosen, known[settings.base])
        chosen += _of_base(_opened(known, settings.base, settings, device, dtype), responses, _prompts(chosen))
    order = {prompt: place for place, prompt in enumerate(dict.fromkeys(target.prompt_id for target in chosen))}
    chosen.sort(key=lambda target: (order[target.prompt_id], list(PHASES).index(target.target)))
    return pd.DataFrame([asdict(target) for target in chosen], columns=COLUMNS)


def _refuse_unasked(known: dict[str, ModelInfo], settings: Prompts) -> None:
    for name in filter(None, (settings.reasoning, settings.base)):
        if name not in known or name not in settings.elicitations:
            raise TargetError(
                f"targets need model {name!r}; prompts.elicitations say how {', '.join(settings.elicitations)} are "
                f"asked, and given are {', '.join(known) or 'none'}"
            )


@dataclass(frozen=True)
class _Answering:
    """A model as it answered the prompts."""

    name: str
    model: Any
    tokenizer: Any
    elicitation: str
    settings: Prompts


def _opened(known: dict[str, ModelInfo], name: str, settings: Prompts, device: str, dtype: str) -> _Answering:
    model, tokenizer = load_model(known[name], device, dtype), load_tokenizer(known[name].folder)
    return _Answering(name, model, tokenizer, settings.elicitations[name], settings)


def _of_reasoning_model(asked: _Answering, responses: pd.DataFrame) -> list[Target]:
    """All targets but `own`."""
    mine, chosen = responses[responses["model"] == asked.name], []
    if mine.empty:
        raise TargetError(f"there is no response of model {asked.name!r}; there are those of {_names(responses)}")
    for prompt_id, group in mine.groupby("prompt_id", sort=False):
        greedy = _greedy(group, asked.name, str(prompt_id))
        reading = _read(asked, greedy)
        answer = answer_place(greedy, asked.tokenizer, asked.elicitation, asked.settings.answer_target)
        think = think_place(greedy, reading.entropy, answer, asked.settings)
        for name, place in (("prompt", 0), ("think", think), ("answer", answer)):
            chosen.append(_target(asked, greedy, name, place, reading))
        chosen += _outcomes(asked, group[group["decoding"] == "sampled"], greedy)
    return chosen


def _of_base(asked: _Answering, responses: pd.DataFrame, prompts: Sequence[Target]) -> list[Target]:
    mine, chosen = responses[responses["model"] == asked.name], []
    for prompt in prompts:
        greedy = _greedy(mine[mine["prompt_id"] == prompt.prompt_id], asked.name, prompt.prompt_id)
        place = answer_place(greedy, asked.tokenizer, asked.elicitation, asked.settings.answer_target)
        chosen.append(_target(asked, greedy, "own", place, _read(asked, greedy)))
    return chosen


def _prompts(chosen: Iterable[Target]) -> list[Target]:
    """One target of each prompt."""
    return [target for target in chosen if target.target == "prompt"]


def _names(responses: pd.DataFrame) -> str:
    return ", ".join(responses["model"].unique()) or "no model"


def _greedy(group: pd.DataFrame, model: str, prompt_id: str) -> dict[str, Any]:
    rows = group[group["decoding"] == "greedy"].to_dict("records")
    if len(rows) != 1:
        raise TargetError(
            f"expected one greedy response of model {model!r} to prompt {prompt_id!r}, came {len(rows)}: make the "
            "responses again"
        )
    return rows[0]


def _refuse_foreign_ids(chosen: Iterable[Target], base: ModelInfo) -> None:
    """The base is traced on the reasoning model's ids, so it must have them all; ids it never saw are only noted."""
    unseen, found = set(base.unseen_ids), 0
    for target in chosen:
        if target.target not in FORCED:
            continue
        ids = [*target.ids, target.target_id]
        if max(ids) >= base.vocabulary:
            raise TargetError(
                f"prompt {target.prompt_id!r}, target {target.target!r}: id {max(ids)} of model {target.model!r} is "
                f"none of the {base.vocabulary} of model {base.name!r}, which thus cannot be traced on the same "
                "tokens. Set `prompts.base: null`, or name a base with the same tokenizer."
            )
        found += bool(unseen.intersection(ids))
    if found:
        log.info("%d contexts hold ids that %s never saw in training", found, base.name)


def _outcomes(asked: _Answering, sampled: pd.DataFrame, greedy: dict[str, Any]) -> list[Target]:
    """`correct` and `incorrect`: of the samples with an answer, the couple whose contexts are nearest in length."""
    places: dict[bool, list[tuple[int, dict[str, Any]]]] = {True: [], False: []}
    for row in sampled.sort_values("sample").to_dict("records"):
        place = answer_place(row, asked.tokenizer, asked.elicitation, asked.settings.answer_target)
        if row["judged"] and isinstance(row["given"], str) and isinstance(place, int):
            places[bool(row["correct"])].append((place, row))
    if not (places[True] and places[False]):
        right, wrong = (len(places[flag]) for flag in (True, False))
        reason = f"{right} of {len(sampled)} sampled responses give a correct answer and {wrong} an incorrect one"
        return [_none(greedy, name, asked.name, reason) for name in ("correct", "incorrect")]
    couples = [(right, wrong) for right in places[True] for wrong in places[False]]
    nearest = min(couples, key=lambda couple: abs(couple[0][0] - couple[1][0]))  # the first of equals
    return [
        _target(asked, row, name, place, _read(asked, row))
        for name, (place, row) in zip(("correct", "incorrect"), nearest, strict=True)
    ]


def _read(asked: _Answering, row: dict[str, Any]) -> Reading:
    return read_response(asked.model, list(map(int, row["prompt_ids"])), list(map(int, row["response_ids"])))


def _target(asked: _Answering, row: dict[str, Any], name: str, place: Place, reading: Reading) -> Target:
    if isinstance(place, str):
        return _none(row, name, asked.name, place)
    target_id = int(row["response_ids"][place])
    return Target(
        prompt_id=row["prompt_id"],
        category=row["category"],
        target=name,
        phase=PHASES[name],
        model=asked.name,
        decoding=row["decoding"],
        sample=int(row["sample"]),
        ids=tuple(map(int, [*row["prompt_ids"], *row["response_ids"][:place]])),
        target_id=target_id,
        target_token=_text(asked.tokenizer, [target_id]),
        probability=float(reading.probability[place]),
        entropy=float(reading.entropy[place]),
        rank=int(reading.rank[place]),
        reason=None,
    )


def _none(row: dict[str, Any] | Target, name: str, model: str, reason: str) -> Target:
    """The row of a prompt that has no such target."""
    about = asdict(row) if isinstance(row, Target) else row
    decoding = "sampled" if name in ("correct", "incorrect") else "greedy"
    nan = float("nan")
    return Target(
        about["prompt_id"], about["category"], name, PHASES[name], model, decoding, -1, (), -1, "", nan, nan, -1, reason
    )


# --------------------------------------------------------------------------------------------------------- places


def answer_place(row: dict[str, Any], tokenizer: Any, elicitation: str, answer_target: str) -> Place:
    """Where the answer of a response begins, by the rules of this module."""
    ids = [int(one) for one in row["response_ids"]]
    if ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    if not ids:
        return "the response is empty"
    if elicitation == "direct":
        return 0
    if elicitation == "think" and row["think_end"] < 0:
        return "the think phase is not closed"
    after = len(_text(tokenizer, ids[: int(row["think_end"]) + 1]))  # 0 without a think phase
    text = _text(tokenizer, ids)[after:]
    if elicitation == "solution":
        start = _stated(text)
    else:
        start = _boxed(text) if answer_target == "boxed" else _visible(text, 0, "nothing follows the think phase")
    return start if isinstance(start, str) else _token_with(tokenizer, ids, after + start)


def think_place(row: dict[str, Any], entropy: Float[np.ndarray, " token"], answer: Place, settings: Prompts) -> Place:
    """Where the `think` target of a response stands, by the rules of this module."""
    if not isinstance(row["think"], str):
        return "the model is asked without a think phase"
    end = int(row["think_end"]) if row["think_end"] >= 0 else len(entropy)
    if end <= 2 * EDGE:
        return f"the think phase has {end} tokens; at least {2 * EDGE + 1} are needed"
    if settings.think_target == "middle":
        return end // 2
    if isinstance(answer, str):
        return f"there is no answer target to match: {answer}"
    asked = len(row["prompt_ids"])
    shortest = settings.think_context_share * (asked + answer)
    first = max(EDGE, int(np.ceil(shortest - asked - 1e-9)))  # places before it have shorter contexts
    if first >= end - EDGE:
        return f"no context in the think phase is {settings.think_context_share:g} as long as that of the answer"
    distance = np.abs(entropy[first : end - EDGE] - entropy[answer])
    return end - EDGE - 1 - int(np.argmin(distance[::-1]))  # from the end: the last of equals


def _boxed(text: str) -> Place:
    """The first visible character inside the last complete box."""
    for box in reversed(list(re.finditer(r"\\boxed\s*\{", text))):
        inside = boxed_answer(text[box.start() :])
        if inside is not None:
            return _visible(text, box.end(), "the last box is empty") if inside else "the last box is empty"
    return "the answer has no complete box"


def _stated(text: str) -> Place:
    """The first character of the number after the last "answer is" that one follows."""
    for words in reversed(list(re.finditer(r"answer is\s*\$?", text))):
        if stated_answer(text[words.start() :]) is not None:
            return words.end()
    return 'no number follows "answer is"'


def _visible(text: str, start: int, otherwise: str) -> Place:
    found = re.compile(r"\S").search(text, start)
    return found.start() if found else otherwise


def _token_with(tokenizer: Any, ids: Sequence[int], character: int) -> int:
    """Index of the token with (the first byte of) a character of the text.

    Decoded beginnings do not get shorter: a byte-level token that ends within a character adds U+FFFD for it.
    """
    return bisect.bisect_right(range(len(ids)), character, key=lambda last: len(_text(tokenizer, ids[: last + 1])))


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


# -------------------------------------------------------------------------------------------------------- reading


@torch.inference_mode()
def read_response(model: Any, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> Reading:
    """What `model` expects at each token of a response, in one forward pass."""
    ids = torch.tensor([[*prompt_ids, *response_ids]], device=model.device)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(response_ids) + 1).logits[0, :-1]
    said = ids[0, len(prompt_ids) :, None]
    parts = []
    for start in range(0, len(response_ids), _ROWS_AT_ONCE):
        chances = torch.log_softmax(logits[start : start + _ROWS_AT_ONCE].float(), -1)  # (token, vocabulary)
        of_said = chances.gather(1, said[start : start + _ROWS_AT_ONCE])
        entropy = -(chances.exp() * chances).nan_to_num(0.0).sum(-1)
        parts.append(torch.stack([of_said[:, 0].exp(), entropy, (chances > of_said).sum(-1)]).double().cpu())
    probability, entropy, rank = torch.cat(parts, 1).numpy()
    return Reading(probability, entropy, rank.astype(np.int64))
