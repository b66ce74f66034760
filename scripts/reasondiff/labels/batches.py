"""How are many questions asked at half the price, none of them twice?

The service takes a batch of requests, answers within a day, and keeps the results for 29 days. The store knows of a
batch before it is sent, and its id before anything is waited for. A run that was killed in between finds the batch in
the service's own list: by its size and time, and for certain by the keys in its results.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import httpx2

from reasondiff.config import Anthropic
from reasondiff.labels.limiter import BUSY
from reasondiff.labels.prompts import Request, Unusable, read_answer
from reasondiff.labels.spending import ATTEMPTS, over_budget, payment_of, worst_case
from reasondiff.labels.store import Batch, LabelError, Settlement, Store

MOST_REQUESTS, MOST_BYTES = 100_000, 200_000_000  # of a batch; the service takes 256 MB
SUBMISSIONS = 3  # of a request that expires or errs each time
CLOCK_SECONDS = 3600.0  # by which our clock and the service's may differ
SETTLED_AT_ONCE = 500
NEVER_TAKEN = "the connection broke before the service took the batch"
READINGS = 3  # of results whose transfer breaks

log = logging.getLogger(__name__)


class _Cut(Exception):
    """The creation of a batch was cut short: there may be one, or not."""


async def buy_in_batches(
    client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, study: str, requests: Mapping[str, Request]
) -> None:
    """Asks all requests in batches; those whose answer cannot be used once more, those that expired or erred up to
    `SUBMISSIONS` times.

    Raises:
        LabelError: the budget is used up.
    """
    asked, unusable, unanswered = dict(requests), Counter[str](), Counter[str]()
    while asked:
        costs = {key: worst_case(request, settings) for key, request in asked.items()}
        claims = store.claim(costs, study, settings.budget_dollars)
        if claims.over and not claims.keys:
            raise over_budget(store.spend(study), settings, len(asked))
        for keys in _split({key: asked[key] for key in claims.keys}):
            await _submit(client, store, settings, {key: asked[key] for key in keys})
        outcomes = await collect_batches(client, store, settings, requests)
        for key, was_paid in outcomes.items():
            (unusable if was_paid else unanswered)[key] += 1
        rows = store.rows(asked)
        for key in list(asked):
            row = rows.get(key)
            if row is not None and row.state == "answered":
                del asked[key]
            elif key in claims.keys and (unusable[key] == ATTEMPTS or unanswered[key] == SUBMISSIONS):
                store.settle([Settlement(key, None, reason=row.reason)])
                del asked[key]
            elif outcomes.get(key):
                asked[key] = requests[key].again(str(row.reason))
        if asked and not claims.keys:  # another process is at it
            await asyncio.sleep(settings.poll_seconds)


def _split(requests: Mapping[str, Request]) -> Iterator[list[str]]:
    """Keys in groups that the service takes as one batch."""
    group: list[str] = []
    size = 0
    for key, request in requests.items():
        more = 3 * len((request.system + request.prompt).encode()) // 2 + 2000  # JSON quotes some of it
        if group and (len(group) == MOST_REQUESTS or size + more > MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(key)
        size += more
    if group:
        yield group


async def _submit(
    client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, requests: Mapping[str, Request]
) -> None:
    batch = store.open_batch(requests.keys())
    items = [{"custom_id": key, "params": _params(request, settings)} for key, request in requests.items()]

    async def once(request: anthropic.APIRequest, call_next: anthropic.AsyncCallNext) -> Any:
        try:
            response = await call_next(request)
        except anthropic.APIConnectionError:  # the SDK would send it again, and the batch might exist twice
            raise _Cut from None
        if response.status_code >= 500 and response.status_code not in BUSY:
            raise _Cut
        return response

    try:
        for attempt in range(settings.retries + 1):
            try:
                created = await client.with_options(middleware=[once]).messages.batches.create(requests=items)
                batch_id = created.id
            except _Cut:
                batch_id = await _find(client, store, settings, batch)
            if batch_id is not None:
                store.name_batch(batch.number, batch_id)
                log.info("batch of %d requests submitted", len(requests))
                return
            await asyncio.sleep(min(8.0, 0.5 * 2**attempt))
    except anthropic.APIStatusError:
        store.drop_batch(batch.number, "the service took no batch")
        raise
    store.drop_batch(batch.number, NEVER_TAKEN)
    raise LabelError(f"{settings.retries + 1} attempts to send a batch were cut short: run the same command again")


def _params(request: Request, settings: Anthropic) -> dict[str, Any]:
    schema = anthropic.transform_schema(request.schema)
    return {
        "model": settings.model, "max_tokens": settings.max_tokens, "system": request.system,
        "messages": request.messages, "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }  # fmt: skip


async def collect_batches(
    client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, requests: Mapping[str, Request]
) -> dict[str, bool]:
    """Waits for every batch that holds some of these requests and settles their results, whichever run sent it.

    Returns the requests that came back without a usable answer, and whether that was paid for. They are claimed by
    this process, for another attempt.
    """
    batches = store.batches_of(requests)
    results = await asyncio.gather(*(_collect(client, store, settings, requests, batch) for batch in batches))
    return {key: was_paid for outcome in results for key, was_paid in outcome.items()}


async def _collect(
    client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, requests: Mapping[str, Request], batch: Batch
) -> dict[str, bool]:
    batch_id = batch.id or await _find(client, store, settings, batch)
    if batch_id is None:
        store.drop_batch(batch.number, NEVER_TAKEN)
        return {}
    if batch.id is None:
        store.name_batch(batch.number, batch_id)
    try:
        await _ended(client, settings, batch_id)
        for reading in range(1, READINGS + 1):
            try:
                return await _settle_results(client, store, settings, requests, batch.number, batch_id)
            except httpx2.HTTPError as error:
                log.warning("reading results of batch %s broke (%s), time %d", batch_id, type(error).__name__, reading)
        raise LabelError("the results of a batch could not be read to the end: run the same command again")
    except anthropic.NotFoundError:
        log.warning("the service no longer has batch %s: its requests are asked again", batch_id)
        store.drop_batch(batch.number, "the service no longer has the batch", maybe_paid=True)
        return {}


async def _ended(client: anthropic.AsyncAnthropic, settings: Anthropic, batch_id: str) -> None:
    while (await client.messages.batches.retrieve(batch_id)).processing_status != "ended":
        await asyncio.sleep(settings.poll_seconds)


async def _settle_results(
    client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, requests: Mapping[str, Request], number: int,
    batch_id: str,
) -> dict[str, bool]:  # fmt: skip
    """Settles the results of an ended batch. A key that is not among `requests` is left for the run that wants it."""
    outcomes: dict[str, bool] = {}
    waiting: list[Settlement] = []
    async for line in await client.messages.batches.results(batch_id):
        if line.custom_id not in requests:
            continue
        settled = _settlement(line, requests[line.custom_id], settings, number)
        waiting.append(settled)
        if settled.answer is None:
            outcomes[settled.key] = settled.payment is not None
        if len(waiting) == SETTLED_AT_ONCE:
            store.settle(waiting)
            waiting = []
    store.settle(waiting)
    missing = store.unsettled(number) & requests.keys()
    store.settle([Settlement(key, None, reason="no result came", again=True, batch=number) for key in sorted(missing)])
    return {**outcomes, **dict.fromkeys(missing, False)}


def _settlement(line: Any, request: Request, settings: Anthropic, number: int) -> Settlement:
    key, result = line.custom_id, line.result
    if result.type != "succeeded":
        why = result.error.error.message if result.type == "errored" else f"the request was {result.type}"
        return Settlement(key, None, reason=why, again=True, batch=number)
    message = result.message.to_dict()
    payment = payment_of(message, settings.prices, settings.prices.batch_factor)
    try:
        return Settlement(key, payment, answer=read_answer(request, message), batch=number)
    except Unusable as error:
        return Settlement(key, payment, reason=str(error), again=True, batch=number)


async def _find(client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, batch: Batch) -> str | None:
    """The id under which the service has a batch whose creation was cut short; None if it never got there."""
    known, wanted = store.known_batches(), store.unsettled(batch.number)
    async for candidate in client.messages.batches.list(limit=100):
        if candidate.created_at.timestamp() < batch.submitted_at - CLOCK_SECONDS:
            break  # the newest come first
        counts = candidate.request_counts
        size = counts.processing + counts.succeeded + counts.errored + counts.expired + counts.canceled
        if candidate.id in known or size != batch.size:
            continue
        await _ended(client, settings, candidate.id)
        async for line in await client.messages.batches.results(candidate.id):
            if line.custom_id in wanted:
                return candidate.id
            break
    return None
