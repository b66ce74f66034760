"""How well does a model answer, by how it is asked and how it is sampled?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasondiff.models.sampling import generate
from reasondiff.text.answers import boxed_answer, is_correct, normal_answer, stated_answer
from reasondiff.text.traces import PREFIX

__all__ = [
    "ELICITATIONS",
    "RESPONSE_COLUMNS",
    "TABLE_COLUMNS",
    "Elicitation",
    "accuracy_table",
    "bootstrap_interval",
    "boxed_answer",
    "generate",
    "is_correct",
    "normal_answer",
    "stated_answer",
    "think_prompt_ids",
]

_SELF_CHECK = re.compile(r"\bwait\b|double[- ]check", re.IGNORECASE)
_BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Elicitation:
    """A way of asking: accuracy means little without it."""

    prompt: Callable[[PreTrainedTokenizerBase, str], list[int]]
    """The prompt's ids, special tokens included."""
    answer: Callable[[str], str | None]
    """The answer that a response gives, in normal form."""
    longest: int | None
    """Tokens after which a response is cut although more are allowed; None for no such limit."""


def think_prompt_ids(tokenizer: PreTrainedTokenizerBase, problem: str) -> list[int]:
    """The chat template's generation prompt with the instruction, the think tag open (added where a
    template does not)."""
    message = {"role": "user", "content": f"{problem} {PREFIX}"}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    if not text.endswith("<think>\n"):
        text += "<think>\n"
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _plain_prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return begin + tokenizer(text, add_special_tokens=False)["input_ids"]


ELICITATIONS = {
    "think": Elicitation(think_prompt_ids, boxed_answer, None),
    "direct": Elicitation(
        lambda tokenizer, problem: _plain_prompt_ids(tokenizer, f"Question: {problem} Answer: \\boxed{{"),
        lambda response: boxed_answer(f"\\boxed{{{response}"),
        24,
    ),
    "solution": Elicitation(
        lambda tokenizer, problem: _plain_prompt_ids(tokenizer, f"Question: {problem} Solution:"),
        lambda response: boxed_answer(response) or stated_answer(response),
        None,
    ),
}
"""`think`: chat template, instruction, open think tag. `direct`: an open box right after the question.
`solution`: "Solution:" after the question; base models trained on mathematics box their answer, others state it."""


def accuracy_table(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: pd.DataFrame,
    elicitations: Iterable[str],
    decodings: Mapping[str, float],
    samples: int,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy by elicitation, decoding and origin of the problems; and every response it rests on.

    `problems` has columns problem, answer, family, held_out_family (bool). `decodings` maps a name to a
    temperature; greedy (0) is sampled once, the others `samples` times a problem. In the table `low` and
    `high` are the 95 % interval of the accuracy, bootstrapped over problems: the problem is the unit, not
    the sample. The responses are one row each, `problem_index` being the row of `problems`. Without
    problems both tables are empty.

    Raises:
        ValueError: an unknown elicitation or a missing column.
    """
    _check_request(problems, elicitations)
    parts = [
        _responses(model, tokenizer, problems, name, decoding, temperature, samples, seed, max_new_tokens, batch_size)
        for name in elicitations
        for decoding, temperature in decodings.items()
    ]
    responses = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=RESPONSE_COLUMNS)
    keys = ["elicitation", "decoding", "temperature", "problems_from"]
    rows = [
        dict(zip(keys, key, strict=True)) | _summary(group, seed) for key, group in responses.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=TABLE_COLUMNS), responses


RESPONSE_COLUMNS = [
    "elicitation", "decoding", "temperature", "problems_from", "problem_index", "problem", "family", "answer",
    "sample", "response", "given", "correct", "tokens", "truncated", "self_check",
]  # fmt: skip
"""`given` is the answer read from the response (None: none found), `truncated` that it ran out of tokens."""
TABLE_COLUMNS = [
    "elicitation", "decoding", "temperature", "problems_from", "n_problems", "n_samples", "accuracy", "low",
    "high", "mean_tokens", "truncated_share", "self_check_share",
]  # fmt: skip
"""`n_samples` is per problem; `self_check_share` the share of responses with "wait" or "double check"."""


def _check_request(problems: pd.DataFrame, elicitations: Iterable[str]) -> None:
    if unknown := [name for name in elicitations if name not in ELICITATIONS]:
        raise ValueError(f"unknown elicitations {unknown}; known are {', '.join(ELICITATIONS)}.")
    if missing := {"problem", "answer", "family", "held_out_family"} - set(problems.columns):
        raise ValueError(f"the problems lack the columns {sorted(missing)}.")


def _responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: pd.DataFrame,
    name: str,
    decoding: str,
    temperature: float,
    samples: int,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> pd.DataFrame:
    """One row for each problem and sample under one elicitation and decoding."""
    elicitation, repeats = ELICITATIONS[name], samples if temperature > 0 else 1
    limit = min(max_new_tokens, elicitation.longest or max_new_tokens)
    asked = problems.assign(problem_index=range(len(problems)))
    asked = asked.loc[asked.index.repeat(repeats)].reset_index(drop=True)
    prompts = [elicitation.prompt(tokenizer, text) for text in asked["problem"]]
    responses = generate(model, tokenizer, prompts, limit, temperature, seed, batch_size)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]
    given = [elicitation.answer(text) for text in texts]
    expected = [normal_answer(str(answer)) for answer in asked["answer"]]
    columns = asked.assign(
        elicitation=name,
        decoding=decoding,
        temperature=float(temperature),
        problems_from=np.where(asked["held_out_family"].astype(bool), "held_out_family", "seen_families"),
        sample=[row % repeats for row in range(len(asked))],
        response=texts,
        given=given,
        correct=[one == other for one, other in zip(given, expected, strict=True)],
        tokens=[len(ids) for ids in responses],
        truncated=[ids[-1] != tokenizer.eos_token_id for ids in responses],
        self_check=[bool(_SELF_CHECK.search(text)) for text in texts],
    )
    return columns[RESPONSE_COLUMNS]


def _summary(responses: pd.DataFrame, seed: int) -> dict[str, Any]:
    """The figures of one row of the accuracy table."""
    by_problem = responses.groupby("problem_index")["correct"].mean().to_numpy()
    low, high = bootstrap_interval(by_problem, seed)
    return {
        "n_problems": len(by_problem),
        "n_samples": responses["sample"].nunique(),
        "accuracy": by_problem.mean(),
        "low": low,
        "high": high,
        "mean_tokens": responses["tokens"].mean(),
        "truncated_share": responses["truncated"].mean(),
        "self_check_share": responses["self_check"].mean(),
    }


def bootstrap_interval(by_unit: Float[np.ndarray, " unit"], seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over units drawn anew; (nan, nan) for no units."""
    if len(by_unit) == 0:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(len(by_unit), size=(_BOOTSTRAP_DRAWS, len(by_unit)))
    low, high = np.quantile(np.asarray(by_unit)[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
