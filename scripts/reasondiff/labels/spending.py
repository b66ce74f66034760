"""What do requests to Claude cost, at most and about?"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasondiff.config import Anthropic, Labels, Prices
from reasondiff.labels.prompts import DETECTION, FUZZING, LABELLER, LabelAnswer, Request, Verdicts, schema_text
from reasondiff.labels.store import LabelError, Payment, Spend

MILLION = 1_000_000
EXTRA_TOKENS = 1000  # what the service may add to a prompt (roles, the instruction to follow the schema)
COUNTED = 20  # requests whose tokens the service counts for an estimate
ATTEMPTS = 2  # of a request whose answer cannot be used
# for `bound`, which knows no text: bytes of a token in a prompt, its share of the JSON included
TOKEN_BYTES = 24
CONTROLS, NEGATIVE_KINDS = 3, 3  # own, shuffled and top-token labels; random, same-token and neighbour's windows


def dollars(input_tokens: int, output_tokens: int, prices: Prices, factor: float = 1.0) -> float:
    """The price of so many tokens."""
    return factor * (input_tokens * prices.input + output_tokens * prices.output) / MILLION


def payment_of(message: Mapping[str, Any], prices: Prices, factor: float = 1.0) -> Payment:
    """What an answer (the service's JSON) cost. Tokens read from a cache count in full.

    Raises:
        KeyError, TypeError: it says nothing of its usage.
    """
    usage = message["usage"]
    cached = sum(usage.get(name) or 0 for name in ("cache_creation_input_tokens", "cache_read_input_tokens"))
    tokens = (usage["input_tokens"] + cached, usage["output_tokens"])
    return Payment(message["id"], *tokens, dollars(*tokens, prices, factor))


def most_tokens(request: Request) -> int:
    """Input tokens at most: a token stands for at least one byte of what is sent."""
    return len((request.system + request.prompt + schema_text(request.schema)).encode()) + EXTRA_TOKENS


def worst_case(request: Request, settings: Anthropic) -> float:
    """Dollars that one attempt costs at most."""
    return dollars(most_tokens(request), settings.max_tokens, settings.prices, _factor(settings))


def _factor(settings: Anthropic) -> float:
    return settings.prices.batch_factor if settings.interface == "batches" else 1.0


@dataclass(frozen=True)
class Estimate:
    """Requests to send, input tokens by the service's own count of some of them, and dollars: `about` with answers of
    full length, `most` with each prompt at its largest possible number of tokens; each is asked once in both."""

    requests: int
    input_tokens: int
    about: float
    most: float


async def estimate(client: Any, requests: Sequence[Request], settings: Anthropic) -> Estimate:
    """Counting costs nothing. At most `COUNTED` requests, spread evenly, are counted; the rest by their bytes."""
    step = max(1, math.ceil(len(requests) / COUNTED))
    sample = requests[::step]
    counts = await asyncio.gather(*(_count(client, request, settings) for request in sample))
    per_byte = sum(counts) / sum(len((r.system + r.prompt).encode()) for r in sample)
    tokens = round(per_byte * sum(len((r.system + r.prompt).encode()) for r in requests))
    about = dollars(tokens, settings.max_tokens * len(requests), settings.prices, _factor(settings))
    return Estimate(len(requests), tokens, about, sum(worst_case(request, settings) for request in requests))


async def _count(client: Any, request: Request, settings: Anthropic) -> int:
    counted = await client.messages.count_tokens(
        model=settings.model, system=request.system, messages=request.messages, output_format=request.schema
    )
    return counted.input_tokens


def over_budget(spend: Spend, settings: Anthropic, left: int) -> LabelError:
    """The error of a study whose next request could exceed its budget."""
    possible = f", and up to ${spend.possible:.4f} for requests that were never answered" if spend.possible else ""
    reserved = f", ${spend.reserved:.4f} is reserved for requests under way elsewhere" if spend.reserved else ""
    return LabelError(
        f"stopped before a request that could exceed the budget: ${spend.dollars:.4f} of "
        f"${settings.budget_dollars:.2f} are spent{possible}{reserved}; {left} requests are left to do. What is "
        "paid for stays in the store. Raise labels.anthropic.budget_dollars and run the same command again."
    )


def most_labelled(settings: Labels, layers: int, in_graphs: int) -> int:
    """Latents that get a label at most: of a crosscoder (one layer), or of a set of transcoders, of whose latents
    `in_graphs` are labelled because graphs use them."""
    if layers == 1:
        return 3 * settings.pages + settings.sample + layers
    return layers * settings.pages + settings.sample + layers + in_graphs


def bound(settings: Labels, latents: int, window_tokens: int = 64) -> float:
    """Dollars at most for labels of so many latents and their scores, from the config alone: the budget, or less.

    Each request is taken to be asked twice, with prompts of `TOKEN_BYTES` a token and a token a byte. No network.
    """
    window = window_tokens * TOKEN_BYTES
    shown = settings.strongest + 10 * settings.per_quantile  # at most ten quantiles
    scores = settings.scores
    windows = 2 * scores.positives + (NEGATIVE_KINDS + 1) * max(scores.negatives, scores.positives)
    judged = math.ceil(windows / scores.texts_per_request) + 2  # detection and fuzzing are split apart
    label = Request(LABELLER, "x" * (shown * window), LabelAnswer)
    system = max(DETECTION, FUZZING, key=len)
    verdict = Request(system, "x" * (scores.texts_per_request * window), Verdicts)
    claude = settings.anthropic
    one = worst_case(label, claude) + CONTROLS * judged * worst_case(verdict, claude)
    return min(claude.budget_dollars, ATTEMPTS * latents * one)
