"""Prices are the config's, and what is called `at most` is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `paid_study`

import asyncio  # noqa: E402

import pytest  # noqa: E402
from fake_anthropic import FakeAnthropic, input_tokens  # noqa: E402
from paid_study import SECRET, paid_settings, subjects  # noqa: E402

from reasondiff.labels.claude import open_client  # noqa: E402
from reasondiff.labels.prompts import label_request  # noqa: E402
from reasondiff.labels.spending import bound, dollars, estimate, most_tokens, payment_of, worst_case  # noqa: E402
from reasondiff.labels.store import Payment  # noqa: E402


@pytest.fixture
def settings(tmp_path):
    return paid_settings("http://127.0.0.1:9", tmp_path)


def test_a_million_tokens_cost_what_the_config_says(settings):
    prices = settings.anthropic.prices  # 3 and 15 dollars, half of it in batches
    assert dollars(1_000_000, 0, prices) == 3.0
    assert dollars(200_000, 100_000, prices) == pytest.approx(0.6 + 1.5)
    assert dollars(200_000, 100_000, prices, prices.batch_factor) == pytest.approx(1.05)


def test_tokens_of_a_cache_are_counted_in_full(settings):
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 50,
        "cache_creation_input_tokens": None,
        "output_tokens": 10,
    }
    paid = payment_of({"id": "x", "usage": usage}, settings.anthropic.prices)
    assert paid == Payment("x", 150, 10, (150 * 3 + 10 * 15) / 1e6)


def test_no_prompt_has_more_tokens_than_bytes(settings):
    # worst: a byte-level tokenizer without merges; 26 letters are 26 tokens, each of these ideographs is three
    short, long = (label_request(subjects(1)[0]).again(text) for text in ("", "\u601d" * 1000))
    assert most_tokens(long) - most_tokens(short) == 3000
    assert most_tokens(short) > len(short.system.encode()) + len(short.prompt.encode())


def test_the_worst_case_is_full_answers_and_half_of_it_in_batches(settings, tmp_path):
    request = label_request(subjects(1)[0])
    by_hand = (most_tokens(request) * 3 + 400 * 15) / 1e6
    assert worst_case(request, settings.anthropic) == pytest.approx(by_hand)
    batches = paid_settings("http://127.0.0.1:9", tmp_path, interface="batches").anthropic
    assert worst_case(request, batches) == pytest.approx(by_hand / 2)


def test_an_estimate_counts_a_sample_and_lies_between_the_tokens_and_the_worst_case(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    requests = [label_request(subject) for subject in subjects(95)]

    async def counted(settings):
        async with open_client(settings) as client:
            return await estimate(client, requests, settings)

    with FakeAnthropic() as service:
        found = asyncio.run(counted(paid_settings(service, tmp_path).anthropic))
        assert service.seen == {"/v1/messages/count_tokens": 19}
    true = sum(input_tokens({"system": r.system, "messages": r.messages}) for r in requests)
    assert found.requests == 95 and found.input_tokens == pytest.approx(true, rel=0.01)
    assert found.about == pytest.approx((found.input_tokens * 3 + 95 * 400 * 15) / 1e6)
    worst = 95 * worst_case(requests[-1], paid_settings("", tmp_path).anthropic)
    assert found.about < found.most == pytest.approx(worst, rel=0.01)


def test_the_bound_of_a_config_is_never_over_the_budget_and_grows_with_the_latents(settings):
    assert bound(settings, 0) == 0
    assert 0 < bound(settings, 1) < bound(settings, 5)
    assert bound(settings, 1_400_000) == settings.anthropic.budget_dollars
    free = settings.model_copy(update={"anthropic": settings.anthropic.model_copy(update={"budget_dollars": 0.0})})
    assert bound(free, 100) == 0


def test_the_bound_covers_a_label_asked_twice(settings):
    assert bound(settings, 1) > 2 * worst_case(label_request(subjects(1)[0]), settings.anthropic)
