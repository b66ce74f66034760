"""How does Claude label latents and judge labels, each question paid once?"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2

from reasondiff.config import Anthropic, Labels
from reasondiff.labels.batches import buy_in_batches, collect_batches
from reasondiff.labels.limiter import Limiter
from reasondiff.labels.prompts import Request, Unusable, judge_request, label_request, read_answer
from reasondiff.labels.questions import Failure, Label, Question, Subject
from reasondiff.labels.spending import ATTEMPTS, estimate, over_budget, payment_of, worst_case
from reasondiff.labels.store import CLAIM_SECONDS, LabelError, Settlement, Spend, Store
from reasondiff.store import digest

KEY = "ANTHROPIC_API_KEY"
PUBLIC_SERVICE = "https://api.anthropic.com"
REFUSED = (401, 402, 403, 404)  # the key, the account or the model is at fault: no request will fare better
FIRST_FAILURES = 5  # this many without a single answer: the service cannot be reached
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)

log = logging.getLogger(__name__)


class ClaudeProvider:
    """Labels and judgements by Claude, through a store of what was ever paid."""

    measure = "interpretability"

    def __init__(self, settings: Labels, study: str):
        self._settings = settings
        self._study = study
        self._store = Store(settings.store)

    def label(self, subjects: Sequence[Subject]) -> list[Label | Failure]:
        """A label of each subject, in order, or why there is none. One without examples is not asked.

        Raises:
            LabelError: no more may be asked (budget, key, connection). What is paid for stays, a new run goes on.
        """
        requests = [label_request(subject) if subject.examples else None for subject in subjects]
        answers = self._answers(requests)
        return [
            Failure("the latent has no examples") if request is None
            else answer if isinstance(answer, Failure)
            else Label(answer["label"], answer["explanation"])
            for request, answer in zip(requests, answers, strict=True)
        ]  # fmt: skip

    def judge(self, questions: Sequence[Question]) -> list[list[bool | None]]:
        """For each question a verdict on each passage; None where no usable answer came.

        The passages are mixed before they are split into requests, so that their order tells nothing.

        Raises:
            LabelError: as for `label`.
        """
        size = self._settings.scores.texts_per_request
        places: list[tuple[int, list[int]]] = []  # (question, its passages in one request)
        for number, question in enumerate(questions):
            order = _mixed(question, self._settings.scores.seed)
            places += [(number, order[start : start + size]) for start in range(0, len(order), size)]
        requests = [
            judge_request(questions[n].task, questions[n].label, [questions[n].passages[i] for i in chosen])
            for n, chosen in places
        ]
        verdicts: list[list[bool | None]] = [[None] * len(question.passages) for question in questions]
        for (number, chosen), answer in zip(places, self._answers(requests), strict=True):
            if not isinstance(answer, Failure):
                for index, verdict in zip(chosen, answer["verdicts"], strict=True):
                    verdicts[number][index] = verdict
        return verdicts

    def usage(self, subjects: Sequence[Subject]) -> dict[str, int | float]:
        """Requests, tokens and dollars that the labels of these subjects cost, in whichever study they were paid."""
        claude = self._settings.anthropic
        keys = {label_request(s).key(claude.model, claude.max_tokens) for s in subjects if s.examples}
        spend = self._store.spend_on(sorted(keys))
        return {name: getattr(spend, name) for name in ("requests", "input_tokens", "output_tokens", "dollars")}

    def spend(self) -> Spend:
        """What the study has spent so far, on labels and on their scores."""
        return self._store.spend(self._study)

    def _answers(self, requests: Sequence[Request | None]) -> list[dict[str, Any] | Failure | None]:
        """The answer to each request, bought if the store has none; None for no request."""
        claude = self._settings.anthropic
        keys = [None if request is None else request.key(claude.model, claude.max_tokens) for request in requests]
        wanted = {key: request for key, request in zip(keys, requests, strict=True) if key is not None}
        have = self._store.rows(wanted)
        todo = {key: request for key, request in wanted.items() if key not in have or have[key].state != "answered"}
        if todo:
            asyncio.run(self._buy(todo, len(wanted)))
        rows = self._store.rows(wanted)
        return [
            None if key is None
            else rows[key].answer if rows[key].state == "answered"
            else Failure(rows[key].reason or "no answer came")
            for key in keys
        ]  # fmt: skip

    async def _buy(self, todo: dict[str, Request], wanted: int) -> None:
        claude = self._settings.anthropic
        async with open_client(claude) as client, _beating(self._store):
            try:
                await collect_batches(client, self._store, claude, todo)  # a killed run may have left some
                rows = self._store.rows(todo)
                todo = {key: r for key, r in todo.items() if key not in rows or rows[key].state != "answered"}
                if not todo:
                    return
                await self._say_estimate(client, todo, wanted)
                if claude.interface == "batches":
                    await buy_in_batches(client, self._store, claude, self._study, todo)
                else:
                    await Asking(client, self._store, claude, self._study).ask_all(todo)
            except anthropic.APIError as error:
                raise _stopped_by(error) from None
            finally:
                self._store.release("the run was stopped")
        spend = self._store.spend(self._study)
        log.info("%d answers of Claude paid so far by this study, $%.4f", spend.requests, spend.dollars)

    async def _say_estimate(self, client: Any, todo: Mapping[str, Request], wanted: int) -> None:
        """Logs what is about to be spent.

        Raises:
            LabelError: the budget is 0: nothing may be sent.
        """
        claude = self._settings.anthropic
        expected = await estimate(client, list(todo.values()), claude)
        words = (
            f"{expected.requests} of {wanted} requests to send to {claude.model}, about {expected.input_tokens} input "
            f"tokens, about ${expected.about:.4f}, at most ${expected.most:.4f} if each is asked once (budget of the "
            f"study ${claude.budget_dollars:.2f}, of which ${self._store.spend(self._study).dollars:.4f} are spent)"
        )
        log.info(words)
        if claude.budget_dollars == 0:
            raise LabelError(f"{words}. labels.anthropic.budget_dollars is 0: nothing was sent.")


def _mixed(question: Question, seed: int) -> list[int]:
    order = list(range(len(question.passages)))
    random.Random(f"{seed} {digest(repr(question.passages))}").shuffle(order)
    return order


@asynccontextmanager
async def open_client(settings: Anthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The SDK's client. The key is read from the environment here and kept nowhere else.

    Raises:
        LabelError: there is no key.
    """
    key = require_key()
    for talkative in ("anthropic", "httpx2", "httpcore2"):  # at the levels below they log headers and prompts
        logging.getLogger(talkative).setLevel(logging.WARNING)
    client = anthropic.AsyncAnthropic(
        api_key=key,
        base_url=settings.base_url or PUBLIC_SERVICE,  # not what the environment says
        max_retries=settings.retries,
        timeout=settings.timeout_seconds,
        open_telemetry=False,
    )
    async with client:
        yield client


def require_key() -> str:
    """The key of the service.

    Raises:
        LabelError: the environment holds none.
    """
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise LabelError(
            f"labels.provider is `anthropic`, but the environment holds no {KEY}. Set it, or say "
            "`labels.provider: offline`, which labels from patterns of the examples and costs nothing."
        )
    return key


@asynccontextmanager
async def _beating(store: Store) -> AsyncIterator[None]:
    """Keeps the claims alive for as long as the body runs."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 6)
            store.beat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


class Asking:
    """Requests to the Messages API, several under way at once, until all are settled or one says to stop."""

    def __init__(self, client: anthropic.AsyncAnthropic, store: Store, settings: Anthropic, study: str):
        self.client, self.store, self.settings, self.study = client, store, settings, study
        self.limiter = Limiter(settings.concurrency)
        self.queue: deque[tuple[str, Request]] = deque()
        self.stop: LabelError | None = None
        self.reserving = 0  # requests with a reservation in the store
        self.answers = self.failures = 0

    async def ask_all(self, requests: Mapping[str, Request]) -> None:
        """Asks each request once, or twice if its first answer cannot be used.

        Raises:
            LabelError: the service refuses, cannot be reached, or the budget is used up; requests under way are
                waited for first, since they are paid for.
        """
        self.queue.extend(requests.items())
        await asyncio.gather(*(self._work() for _ in range(min(self.settings.concurrency, len(requests)))))
        if self.stop is not None:
            raise self.stop

    async def _work(self) -> None:
        while self.queue and self.stop is None:
            key, request = self.queue.popleft()
            try:
                await self._ask(key, request)
            except LabelError as error:
                self.stop = self.stop or error

    async def _ask(self, key: str, request: Request) -> None:
        asked = request
        for attempt in range(1, ATTEMPTS + 1):
            if not await self._claim(key, asked):
                if not self._is_answered(key):
                    self.queue.append((key, request))  # another process is asking it
                return
            self.reserving += 1
            try:
                received = await self._send(key, asked)
                settled = self._settlement(key, request, received, attempt)
            except (anthropic.APIStatusError, anthropic.APIConnectionError) as error:
                self._fail(key, error)
                return
            except LabelError as error:  # before another attempt was sent
                self.store.settle([Settlement(key, None, reason=str(error))])
                raise
            finally:
                self.reserving -= 1
            self.answers += 1
            self.store.settle([settled])
            if not settled.again:
                return
            asked = request.again(str(settled.reason))

    async def _claim(self, key: str, asked: Request) -> bool:
        """Whether this process may ask now. Waits while the budget is only reserved, not spent, by requests under way.

        Raises:
            LabelError: the request could exceed the budget.
        """
        while True:
            cost = {key: worst_case(asked, self.settings)}
            claims = self.store.claim(cost, self.study, self.settings.budget_dollars)
            if claims.keys:
                return True
            if not claims.over:
                await collect_batches(self.client, self.store, self.settings, {key: asked})
                await asyncio.sleep(0 if self._is_answered(key) else 0.2)
                return False
            if self.reserving == 0:
                raise over_budget(self.store.spend(self.study), self.settings, len(self.queue) + 1)
            await asyncio.sleep(0.05)

    def _is_answered(self, key: str) -> bool:
        row = self.store.rows([key]).get(key)
        return row is not None and row.state == "answered"

    async def _send(self, key: str, asked: Request) -> httpx2.Response:
        """One call of the SDK, its retries included. Returns what was received, as it came: `parse` raises where the
        answer breaks the schema and then keeps the usage, which is paid for, to itself."""
        received: list[httpx2.Response] = []

        async def attempt(request: anthropic.APIRequest, call_next: anthropic.AsyncCallNext) -> Any:
            self._may_send(request.retries_taken)
            async with self.limiter.slot() as started:
                self._may_send(request.retries_taken)
                try:
                    response = await call_next(request)
                except anthropic.APIConnectionError as error:
                    if not isinstance(error.__cause__, NEVER_SENT):
                        self.store.unanswered(key)
                    raise
                self.limiter.heed(response.status_code, started)
            if response.http_response.is_success:
                received.append(response.http_response)
            return response

        try:
            await self.client.with_options(middleware=[attempt]).messages.parse(
                model=self.settings.model, max_tokens=self.settings.max_tokens, system=asked.system,
                messages=asked.messages, output_format=asked.schema,
            )  # fmt: skip
        except (ValueError, TypeError, AttributeError):  # it came and could not be parsed: `read_answer` says why
            if not received:
                raise
        return received[-1]

    def _may_send(self, retries_taken: int) -> None:
        """Stops retries after a refusal, and those that lost attempts have used up the budget for."""
        if self.stop is not None:
            raise self.stop
        spend = self.store.spend(self.study) if retries_taken else None
        if spend is not None and spend.bound > self.settings.budget_dollars:
            raise over_budget(spend, self.settings, len(self.queue) + 1)

    def _settlement(self, key: str, request: Request, received: httpx2.Response, attempt: int) -> Settlement:
        """What came of an attempt that was answered."""
        again = attempt < ATTEMPTS
        try:
            message = json.loads(received.content)
            payment = payment_of(message, self.settings.prices)
        except (ValueError, KeyError, TypeError):
            self.store.unanswered(key)
            return Settlement(key, None, reason="the service's answer is not a message", again=again)
        try:
            return Settlement(key, payment, answer=read_answer(request, message))
        except Unusable as error:
            return Settlement(key, payment, reason=str(error), again=again)

    def _fail(self, key: str, error: anthropic.APIError) -> None:
        """No answer came, after all retries.

        Raises:
            LabelError: the service refuses this account, or answers nobody.
        """
        self.store.settle([Settlement(key, None, reason=_said(error))])
        self.failures += 1
        if isinstance(error, anthropic.APIStatusError) and error.status_code in REFUSED:
            raise _stopped_by(error) from None  # the original may quote the key, and logs show what an error followed
        if self.answers == 0 and self.failures >= FIRST_FAILURES:
            raise LabelError(
                f"the first {self.failures} requests all failed, the last with: {_said(error)}. Nothing was answered. "
                "Check the connection and labels.anthropic.base_url, then run the same command again."
            ) from None


def _stopped_by(error: anthropic.APIError) -> LabelError:
    if isinstance(error, anthropic.APIStatusError) and error.status_code in REFUSED:
        return LabelError(f"Claude refuses: {_said(error)}. Check {KEY}, the account and labels.anthropic.model.")
    return LabelError(f"Claude could not be asked: {_said(error)}. Run the same command again.")


def _said(error: anthropic.APIError) -> str:
    """An error in words, without headers and without the key, should the service have quoted it."""
    if isinstance(error, anthropic.APIStatusError):
        words = f"status {error.status_code} ({error.type or 'unknown'}): {error.api_message or 'no message'}"
    else:
        words = "no connection" if isinstance(error.__cause__, NEVER_SENT) else "the connection broke or timed out"
    return words.replace(os.environ.get(KEY) or "\0", "(key)")
