"""How do models answer the benchmark prompts, each asked in its own way?

Source: docs/methods.md §10.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasondiff.config import Prompts
from reasondiff.models.load import ModelInfo, load_model, load_tokenizer
from reasondiff.models.responses import ELICITATIONS
from reasondiff.models.sampling import generate
from reasondiff.statistics import mean_of_units
from reasondiff.text.judging import is_right
from reasondiff.text.preparation import THINK_CLOSE
from reasondiff.text.prompts import Prompt

RESPONSE_COLUMNS = [
    "model", "elicitation", "prompt_id", "category", "decoding", "sample", "prompt_ids", "response_ids", "response",
    "think", "answer", "think_end", "given", "expected", "judged", "correct", "truncated",
]  # fmt: skip
"""`response_ids` hold the end-of-text id if it was reached, `truncated` says that it was not. `think` and `answer` are
what stands before and after the first `</think>`, which is number `think_end` of the ids (-1: none). `given` is the
answer that was read (None: none found), `judged` whether the prompt's judge could say if it is right; `correct` is
False where it could not."""
ACCURACY_COLUMNS = [
    "model", "elicitation", "decoding", "category", "prompts", "judged", "samples", "accuracy", "low", "high",
    "closed_share", "truncated_share",
]  # fmt: skip
"""`judged` counts prompts with a judged response, `samples` the responses of one prompt; `closed_share` of the
responses end their think phase (NaN where the model is asked without one)."""
ALL = "all"
"""Stands for all categories together."""
_RESAMPLES = 2000


class AnsweringError(ValueError):
    """A model cannot be asked: no elicitation, no think token, or a prompt too long for its context."""


def answer_prompts(
    infos: Iterable[ModelInfo], prompts: Sequence[Prompt], settings: Prompts, device: str, dtype: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(responses, accuracy by category) of each model, asked as `settings.elicitations` says: greedily and with
    `settings.samples` samples.

    Raises:
        AnsweringError: no elicitation is named for a model, it is asked to think without a token for `</think>`, or a
            prompt and a response of the greatest length do not fit into its context.
    """
    parts = []
    for info in infos:
        if info.name not in settings.elicitations:
            raise AnsweringError(
                f"model {info.name!r} has no elicitation: prompts.elicitations names {', '.join(settings.elicitations)}"
            )
        model, tokenizer = load_model(info, device, dtype), load_tokenizer(info.folder)
        parts.append(answers_of(model, tokenizer, info.name, prompts, settings))
    responses = pd.concat(parts, ignore_index=True)
    return responses, accuracy_by_category(responses, settings.seed)


def answers_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    prompts: Sequence[Prompt],
    settings: Prompts,
) -> pd.DataFrame:
    """The responses of one model, columns `RESPONSE_COLUMNS`, in the order of the prompts; greedy ones first."""
    elicitation = ELICITATIONS[settings.elicitations[name]]
    close = _close_id(tokenizer) if settings.elicitations[name] == "think" else None
    asked = [elicitation.prompt(tokenizer, prompt.text) for prompt in prompts]
    longest = min(settings.max_new_tokens, elicitation.longest or settings.max_new_tokens)
    _refuse_too_long(model, name, prompts, asked, longest)
    rows = []
    for decoding, temperature, repeats in (("greedy", 0.0, 1), ("sampled", settings.temperature, settings.samples)):
        wanted = [index for index in range(len(prompts)) for _ in range(repeats)]
        said = generate(
            model, tokenizer, [asked[index] for index in wanted], longest, temperature, settings.seed,
            settings.batch_size,
        )  # fmt: skip
        for place, (index, ids) in enumerate(zip(wanted, said, strict=True)):
            about = {"model": name, "decoding": decoding, "sample": place % repeats, "prompt_ids": asked[index]}
            rows.append(about | _read(tokenizer, prompts[index], settings.elicitations[name], close, ids))
    return pd.DataFrame(rows, columns=RESPONSE_COLUMNS)


def _refuse_too_long(
    model: PreTrainedModel, name: str, prompts: Sequence[Prompt], asked: Sequence[Sequence[int]], longest: int
) -> None:
    context = model.config.max_position_embeddings
    for prompt, ids in zip(prompts, asked, strict=True):
        if len(ids) + longest > context:
            raise AnsweringError(
                f"prompt {prompt.id!r} has {len(ids)} tokens for model {name!r}; with {longest} of a response "
                f"(prompts.max_new_tokens) they exceed its context of {context}. Shorten the prompt, or allow fewer "
                "new tokens."
            )


def _close_id(tokenizer: PreTrainedTokenizerBase) -> int:
    close = tokenizer.convert_tokens_to_ids(THINK_CLOSE)
    if close is None or tokenizer.convert_ids_to_tokens(close) != THINK_CLOSE:
        raise AnsweringError(
            f"the tokenizer {tokenizer.name_or_path!r} has no token {THINK_CLOSE}, and its model is asked to think "
            "(prompts.elicitations). Ask it with `solution` or `direct`."
        )
    return close


def _read(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, elicitation: str, close: int | None, ids: list[int]
) -> dict[str, Any]:
    """What one response says, and whether it is right. `close` is the id of `</think>`, None without a think phase."""
    think_end = ids.index(close) if close in ids else -1
    before, after = (ids, []) if think_end < 0 else (ids[:think_end], ids[think_end + 1 :])
    first, second = (tokenizer.decode(part, skip_special_tokens=True) for part in (before, after))
    think, answer = (None, first) if close is None else (first, second if think_end >= 0 else None)
    given = None if answer is None else ELICITATIONS[elicitation].answer(answer)
    right = is_right(prompt.judge, prompt.expected, answer, given)
    return {
        "elicitation": elicitation,
        "prompt_id": prompt.id,
        "category": prompt.category,
        "response_ids": ids,
        "response": first if think_end < 0 else f"{first}{THINK_CLOSE}{second}",
        "think": think,
        "answer": answer,
        "think_end": think_end,
        "given": given,
        "expected": prompt.expected,
        "judged": right is not None,
        "correct": bool(right),
        "truncated": ids[-1] != tokenizer.eos_token_id,
    }


def accuracy_by_category(responses: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row for each model, elicitation, decoding and category, and one for all categories; `ACCURACY_COLUMNS`.

    `accuracy` is the mean over prompts of the share of right responses among those judged, `low` and `high` its 95 %
    interval, bootstrapped over prompts (NaN below six; NaN all three where nothing is judged).
    """
    rows = []
    for key, group in responses.groupby(["model", "elicitation", "decoding"], sort=False):
        about = dict(zip(("model", "elicitation", "decoding"), key, strict=True))
        for category, part in [(ALL, group), *group.groupby("category", sort=False)]:
            rows.append({**about, "category": category, **_figures(part, seed)})
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


def _figures(responses: pd.DataFrame, seed: int) -> dict[str, float | int]:
    right = responses[responses["judged"]].groupby("prompt_id", sort=False)["correct"].mean().to_numpy(np.float64)
    found = mean_of_units(right, _RESAMPLES, seed)
    thinks = responses["elicitation"].iloc[0] == "think"
    return {
        "prompts": responses["prompt_id"].nunique(),
        "judged": len(right),
        "samples": responses["sample"].nunique(),
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "closed_share": float((responses["think_end"] >= 0).mean()) if thinks else float("nan"),
        "truncated_share": float(responses["truncated"].mean()),
    }
