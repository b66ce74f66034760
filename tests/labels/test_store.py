"""A request is claimed by one process, paid once, and a budget holds for all processes together."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from reasondiff.labels import store as stores
from reasondiff.labels.store import LabelError, Payment, Settlement, Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.sqlite"


@pytest.fixture
def store(path):
    return Store(path)


def paid(key, dollars=0.25, answer_id=None):
    return Settlement(key, Payment(answer_id or f"id of {key}", 100, 10, dollars), {"label": "some words here"})


def of_a_dead_process(path):
    """A store whose process has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    other = Store(path)
    other.owner = f"{other.machine}:{child.pid}:x"
    return other


def test_a_claimed_request_is_not_another_processes_to_ask(store, path):
    other = Store(path)
    assert store.claim({"a": 1.0, "b": 1.0}, "study", 9.0).keys == ["a", "b"]
    assert other.claim({"a": 1.0, "c": 1.0}, "study", 9.0).keys == ["c"]


def test_an_answer_is_kept_and_never_claimed_again(store, path):
    store.claim({"a": 1.0}, "study", 9.0)
    store.settle([paid("a")])
    assert Store(path).claim({"a": 1.0}, "another study", 9.0).keys == []
    row = Store(path).rows(["a", "unknown"])
    assert row["a"].state == "answered" and row["a"].answer == {"label": "some words here"} and "unknown" not in row


def test_the_claim_of_a_process_that_died_is_taken_over_and_its_attempt_stays_in_the_books(path, store):
    of_a_dead_process(path).claim({"a": 0.75}, "first", 9.0)
    assert store.claim({"a": 0.5}, "second", 9.0).keys == ["a"]
    first, second = store.spend("first"), store.spend("second")
    assert (first.dollars, first.possible, first.reserved) == (0.0, 0.75, 0.0)
    assert (second.dollars, second.possible, second.reserved) == (0.0, 0.0, 0.5)


def test_a_claim_without_a_heartbeat_expires_and_one_with_a_heartbeat_does_not(store, path, monkeypatch):
    other, clock = Store(path), [1000.0]
    monkeypatch.setattr(stores.time, "time", lambda: clock[0])
    store.claim({"a": 1.0, "b": 1.0}, "study", 9.0)
    clock[0] += stores.CLAIM_SECONDS - 1
    store.beat()
    clock[0] += 2
    assert other.claim({"a": 1.0}, "study", 9.0).keys == []
    clock[0] += stores.CLAIM_SECONDS
    assert other.claim({"a": 1.0}, "study", 9.0).keys == ["a"]


def test_an_answer_that_comes_after_its_claim_was_taken_over_is_kept_and_a_failure_is_not(store, path, monkeypatch):
    other, now = Store(path), stores.time.time()
    store.claim({"a": 1.0, "b": 1.0}, "study", 9.0)
    monkeypatch.setattr(stores.time, "time", lambda: now + 2 * stores.CLAIM_SECONDS)
    other.claim({"a": 1.0, "b": 1.0}, "study", 9.0)
    store.settle([paid("a"), Settlement("b", None, reason="late")])
    assert store.rows(["a"])["a"].state == "answered" and store.rows(["b"])["b"].state == "claimed"


def test_the_budget_counts_what_is_spent_and_reserved_and_possibly_paid_of_this_study_alone(store):
    store.claim({"elsewhere": 5.0}, "other", 9.0)
    store.claim({"a": 0.5}, "study", 2.0)
    store.settle([paid("a", dollars=0.25)])
    store.claim({"b": 0.5}, "study", 2.0)
    store.unanswered("b")  # 0.25 + 0.5 possibly + 0.5 reserved = 1.25
    assert store.spend("study").bound == 1.25
    assert store.claim({"c": 0.8}, "study", 2.0) == stores.Claims([], True)
    assert store.claim({"c": 0.75}, "study", 2.0) == stores.Claims(["c"], False)


def test_claims_go_as_far_as_the_budget_in_order(store):
    claims = store.claim({"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.1}, "study", 2.5)
    assert claims.keys == ["a", "b"] and claims.over


def test_two_processes_cannot_both_reserve_the_last_of_the_budget(store, path):
    other = Store(path)
    assert store.claim({"a": 1.0}, "study", 1.5).keys == ["a"]
    assert other.claim({"b": 1.0}, "study", 1.5).over
    store.settle([paid("a", dollars=0.5)])  # the real price replaces the reservation
    assert other.claim({"b": 1.0}, "study", 1.5).keys == ["b"]


def test_an_answer_read_twice_is_paid_once(store):
    store.claim({"a": 1.0}, "study", 9.0)
    store.settle([paid("a"), paid("a")])
    assert store.spend("study").dollars == 0.25 and store.spend("study").requests == 1


def test_an_unusable_answer_is_paid_too_and_a_failed_request_may_be_asked_again_by_another_study(store):
    store.claim({"a": 1.0}, "first", 9.0)
    store.settle([Settlement("a", Payment("1", 10, 5, 0.25), reason="refused", again=True)])
    assert store.claim({"a": 1.0}, "first", 9.0).keys == ["a"]  # its second attempt
    store.settle([Settlement("a", Payment("2", 10, 5, 0.25), reason="refused")])
    assert store.rows(["a"])["a"].state == "failed" and store.rows(["a"])["a"].reason == "refused"
    assert store.claim({"a": 1.0}, "second", 9.0).keys == ["a"]
    store.settle([paid("a", 0.5, "3")])
    assert (store.spend("first").dollars, store.spend("second").dollars) == (0.5, 0.5)
    assert store.spend_on(["a"]).requests == 3 and store.spend_on(["a"]).input_tokens == 120


def test_giving_up_keeps_in_the_books_what_was_under_way(store):
    store.claim({"a": 1.0, "b": 1.0}, "study", 9.0)
    store.settle([Settlement("b", None, reason="malformed", again=True)])
    store.release("stopped")
    rows = store.rows(["a", "b"])
    assert (rows["a"].reason, rows["b"].reason) == ("stopped", "malformed")
    assert (store.spend("study").possible, store.spend("study").reserved) == (1.0, 0.0)


def test_a_transaction_that_fails_in_the_middle_leaves_nothing(store):
    store.claim({"a": 1.0}, "study", 9.0)
    with pytest.raises(TypeError):  # the second row is not there
        store.settle([paid("a"), paid("never claimed")])
    assert store.rows(["a"])["a"].state == "claimed" and store.spend("study").dollars == 0


def test_a_store_that_is_no_database_is_named_in_the_error(path):
    path.write_bytes(b"this is no database, and has not been one since it was written" * 20)
    with pytest.raises(LabelError, match=r"labels\.sqlite cannot be used .*move it"):
        Store(path)


def test_a_store_with_damaged_pages_is_named_in_the_error(store, path):
    store.claim({str(number): 0.0 for number in range(3000)}, "study", 9.0)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LabelError, match=r"labels\.sqlite cannot be used"):
        Store(path).claim({"5": 1.0}, "study", 9.0)


def test_a_store_of_another_version_is_refused(store, path):
    store.db.execute("PRAGMA user_version = 99")
    with pytest.raises(LabelError, match="version 99"):
        Store(path)


def test_a_store_in_a_folder_that_is_a_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabelError, match="folder can be written"):
        Store(tmp_path / "file" / "labels.sqlite")
