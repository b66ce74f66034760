"""Batches cost half, and whatever cuts a run short, each request is in one of them once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `paid_study`

import signal  # noqa: E402
import time  # noqa: E402

import pytest  # noqa: E402
from fake_anthropic import FakeAnthropic  # noqa: E402
from paid_study import SECRET, expected_texts, paid_settings, start_buying, subjects, texts  # noqa: E402

from reasondiff.labels import batches  # noqa: E402
from reasondiff.labels.claude import ClaudeProvider  # noqa: E402
from reasondiff.labels.prompts import label_request  # noqa: E402
from reasondiff.labels.questions import Failure  # noqa: E402
from reasondiff.labels.spending import worst_case  # noqa: E402
from reasondiff.labels.store import LabelError, Store  # noqa: E402


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)


@pytest.fixture
def settings_of(tmp_path):
    return lambda service, **changes: paid_settings(service, tmp_path, interface="batches", **changes)


def submitted(service):
    """How many requests each batch of the service holds, oldest first."""
    return [len(batch["items"]) for batch in service.batches.values()]


def agrees(provider, service, settings):
    return provider.spend().dollars == pytest.approx(service.dollars(settings.anthropic.prices), abs=1e-9)


def submit_and_break_off(settings, count):
    """A run that ends while it writes the results of its batch."""

    def break_off(*_):
        raise RuntimeError("broken off")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="broken off"):
        patch.setattr(Store, "settle", break_off)
        ClaudeProvider(settings, "killed").label(subjects(count))


def test_a_batch_brings_every_label_at_half_the_price(settings_of):
    with FakeAnthropic() as service:
        settings = settings_of(service)
        provider = ClaudeProvider(settings, "study")
        assert texts(provider.label(subjects(12))) == expected_texts(12)
        full = (service.billed["input"] * 3 + service.billed["output"] * 15) / 1e6
        assert provider.spend().dollars == pytest.approx(full / 2) and agrees(provider, service, settings)
        assert submitted(service) == [12] and provider.spend().bound == provider.spend().dollars


@pytest.mark.parametrize("kind", ["expired", "errored", "canceled"])
def test_only_what_expired_or_erred_is_submitted_again(settings_of, kind):
    with FakeAnthropic([{"kind": kind, "times": 3}]) as service:
        settings = settings_of(service)
        provider = ClaudeProvider(settings, "study")
        assert texts(provider.label(subjects(10))) == expected_texts(10)
        assert submitted(service) == [10, 3] and set(service.answered.values()) == {1}
        assert agrees(provider, service, settings)


def test_what_expires_each_time_fails_and_is_asked_again_by_the_next_run(settings_of):
    with FakeAnthropic([{"kind": "expired", "times": 3, "match": "word1"}]) as service:
        provider = ClaudeProvider(settings_of(service), "study")
        labels = provider.label(subjects(3))
        assert labels[1] == Failure("the request was expired") and submitted(service) == [3, 1, 1]
        assert texts(provider.label(subjects(3))) == expected_texts(3)


@pytest.mark.parametrize("kind", ["refusal", "max_tokens", "json", "schema"])
def test_an_unusable_result_is_paid_and_asked_for_once_more(settings_of, kind):
    faults = [{"kind": kind, "match": "word0"}, {"kind": kind, "times": 2, "match": "word1"}]
    with FakeAnthropic(faults) as service:
        settings = settings_of(service)
        provider = ClaudeProvider(settings, "study")
        labels = provider.label(subjects(4))
        assert isinstance(labels[1], Failure) and texts([labels[0], *labels[2:]]) == [
            f"the token word{index} and alike" for index in (0, 2, 3)
        ]
        assert submitted(service) == [4, 2] and sorted(service.answered.values()) == [1, 1, 2, 2]
        assert agrees(provider, service, settings)


def test_large_batches_are_split(settings_of, monkeypatch):
    monkeypatch.setattr(batches, "MOST_REQUESTS", 4)
    with FakeAnthropic() as service:
        assert texts(ClaudeProvider(settings_of(service), "study").label(subjects(10))) == expected_texts(10)
        assert submitted(service) == [4, 4, 2]
    requests = {str(index): label_request(subject) for index, subject in enumerate(subjects(3))}
    monkeypatch.setattr(batches, "MOST_BYTES", 1)
    assert list(batches._split(requests)) == [["0"], ["1"], ["2"]]


def test_a_batch_whose_creation_was_cut_off_is_found_and_not_sent_again(settings_of):
    with FakeAnthropic([{"kind": "lost_batch"}]) as service:
        settings = settings_of(service)
        provider = ClaudeProvider(settings, "study")
        assert texts(provider.label(subjects(6))) == expected_texts(6)
        assert submitted(service) == [6] and agrees(provider, service, settings)


def test_a_batch_that_never_got_there_is_sent_again(settings_of):
    with FakeAnthropic([{"kind": "drop"}, {"kind": "429", "times": 2, "retry_after": 0.01}]) as service:
        provider = ClaudeProvider(settings_of(service), "study")
        assert texts(provider.label(subjects(6))) == expected_texts(6) and submitted(service) == [6]


def test_a_run_killed_while_it_waits_polls_the_same_batch_when_resumed(settings_of):
    with FakeAnthropic(polls=10**6) as service:
        settings = settings_of(service)
        child = start_buying(settings, 9)
        store = Store(settings.store)
        until = time.monotonic() + 20
        while not store.known_batches():
            assert time.monotonic() < until
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        for batch in service.batches.values():
            batch["left"] = 2
        provider = ClaudeProvider(settings, "killed")
        assert texts(provider.label(subjects(9))) == expected_texts(9)
        assert submitted(service) == [9] and set(service.answered.values()) == {1}
        assert agrees(provider, service, settings) and provider.spend().bound == provider.spend().dollars


@pytest.mark.parametrize("moment", ["name_batch", "settle"])
def test_a_run_killed_between_two_writes_pays_no_batch_twice(settings_of, moment):
    with FakeAnthropic() as service:
        settings = settings_of(service)
        assert start_buying(settings, 7, killed_at=moment).wait() == -signal.SIGKILL
        other = ClaudeProvider(settings, "another")  # the results are for whoever comes
        assert texts(other.label(subjects(7))) == expected_texts(7)
        assert submitted(service) == [7] and set(service.answered.values()) == {1}
        assert other.spend().bound == 0 and agrees(ClaudeProvider(settings, "killed"), service, settings)


def test_a_batch_under_way_is_waited_for_by_the_messages_interface_too(settings_of):
    with FakeAnthropic() as service:
        settings = settings_of(service)
        submit_and_break_off(settings, 5)
        single = settings.model_copy(
            update={"anthropic": settings.anthropic.model_copy(update={"interface": "messages"})}
        )
        provider = ClaudeProvider(single, "killed")
        assert texts(provider.label(subjects(6))) == expected_texts(6)
        assert service.seen["/v1/messages"] == 1 and agrees(provider, service, settings), "at the batch's price"


def test_results_of_requests_that_are_not_wanted_now_wait_for_who_wants_them(settings_of):
    with FakeAnthropic() as service:
        settings = settings_of(service)
        submit_and_break_off(settings, 8)
        provider = ClaudeProvider(settings, "killed")
        assert texts(provider.label(subjects(3))) == expected_texts(3)
        assert texts(provider.label(subjects(8))) == expected_texts(8)
        assert submitted(service) == [8] and agrees(provider, service, settings)


def test_a_batch_the_service_no_longer_has_is_asked_again_and_stays_in_the_books(settings_of):
    with FakeAnthropic() as service:
        settings = settings_of(service)
        submit_and_break_off(settings, 4)
        service.batches.clear()
        provider = ClaudeProvider(settings, "killed")
        assert texts(provider.label(subjects(4))) == expected_texts(4)
        assert provider.spend().possible > 0


def test_a_budget_for_some_submits_some_and_then_stops(settings_of):
    with FakeAnthropic() as service:
        one = worst_case(label_request(subjects(1)[0]), settings_of(service).anthropic)
        settings = settings_of(service, budget_dollars=3.05 * one)
        provider = ClaudeProvider(settings, "study")
        with pytest.raises(LabelError, match="budget"):
            provider.label(subjects(50))
        assert submitted(service)[0] == 3 and sum(submitted(service)) > 3, "real prices leave room for more"
        assert service.dollars(settings.anthropic.prices) <= 3.05 * one and agrees(provider, service, settings)


def test_a_refused_account_stops_a_batch_before_it_is_sent(settings_of):
    with FakeAnthropic([{"kind": "401"}]) as service:
        provider = ClaudeProvider(settings_of(service), "study")
        with pytest.raises(LabelError, match="401") as caught:
            provider.label(subjects(4))
        assert SECRET not in str(caught.value) and provider.spend().bound == 0
        assert texts(provider.label(subjects(4))) == expected_texts(4)
