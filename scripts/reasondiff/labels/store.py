"""Which requests to Claude were made, what came back, and who paid?

One SQLite file for all studies. A request is known by its key (`Request.key`) and bought once: whoever wants it first
*claims* it and *reserves* its worst case, in one transaction that also checks the budget; the answer and its price are
written in one transaction as soon as they are there. A process killed at any point loses no answer that it had written,
so the only requests ever sent twice are those whose answer had not come back when it was killed.

- A claim is alive while its process is: heartbeats refresh it, and one that is `CLAIM_SECONDS` old, or whose process
  is gone from this machine, is taken over.
- An attempt that was sent and never answered (a dropped connection, a killed process) may have been paid for. The
  service does not say. Its worst case stays in the books as `possible`, counts against the budget, and is no spend.
- What was paid for is neither lost nor read wrong in silence: a database that is damaged is refused when it is opened,
  and each answer stands beside a digest of itself.
- Write-ahead logging needs all processes that use the file on one machine, on a local disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasondiff.store import digest

CLAIM_SECONDS = 120.0
BUSY_SECONDS = 60.0
VERSION = 1
ROUNDING_DOLLARS = 1e-9

_SCHEMA = f"""
CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'batched', 'answered', 'failed')),
    study TEXT NOT NULL,                -- that asked last
    answer TEXT,                        -- of an answered request: digest, blank, JSON
    reason TEXT,                        -- why there is no answer
    attempts INTEGER NOT NULL,          -- in the last run that asked
    owner TEXT,                         -- the process that claimed it
    claimed_at REAL,
    reserved REAL NOT NULL DEFAULT 0,   -- dollars, worst case of the attempt under way
    batch INTEGER REFERENCES batches,
    updated_at REAL NOT NULL
) STRICT;
CREATE TABLE payments (                 -- one row for each answer received, usable or not, and each that never came
    answer_id TEXT PRIMARY KEY,
    key TEXT NOT NULL REFERENCES requests,
    study TEXT NOT NULL,
    received INTEGER NOT NULL,          -- 0: sent, never answered; `dollars` is then the worst case
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    dollars REAL NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    id TEXT UNIQUE,                     -- the service's; NULL while it is being created
    owner TEXT NOT NULL,
    size INTEGER NOT NULL,
    submitted_at REAL NOT NULL
) STRICT;
CREATE INDEX requests_of_study ON requests (study, reserved);
CREATE INDEX requests_of_batch ON requests (batch);
CREATE INDEX payments_of_study ON payments (study, received);
CREATE INDEX payments_of_key ON payments (key);
PRAGMA user_version = {VERSION};
"""


class LabelError(RuntimeError):
    """Labelling cannot go on; the message says why and what to do. Everything paid for stays in the store."""


@dataclass(frozen=True)
class Payment:
    """What one answer cost; `answer_id` is the service's, so that an answer read twice is paid once."""

    answer_id: str
    input_tokens: int
    output_tokens: int
    dollars: float


@dataclass(frozen=True)
class Settlement:
    """What came of one attempt: an answer, or the reason why there is none. `payment` None: nothing was billed.
    `again`: the claim is kept for another attempt. `batch`: the batch that it came in."""

    key: str
    payment: Payment | None
    answer: Mapping[str, Any] | None = None
    reason: str | None = None
    again: bool = False
    batch: int | None = None


@dataclass(frozen=True)
class Row:
    """A request: its state, answer or reason, and the number of its batch."""

    state: str
    answer: Any
    reason: str | None
    batch: int | None


@dataclass(frozen=True)
class Claims:
    """`keys` are this process's to ask; `over`: the next one would have exceeded the budget."""

    keys: list[str]
    over: bool


@dataclass(frozen=True)
class Spend:
    """Answers received, their tokens and price in dollars. `possible`: worst case of attempts that were never answered;
    `reserved`: worst case of those under way."""

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float
    possible: float
    reserved: float

    @property
    def bound(self) -> float:
        """Dollars at most, whatever becomes of the attempts."""
        return self.dollars + self.possible + self.reserved


@dataclass(frozen=True)
class Batch:
    """A batch that holds requests still to be settled; `id` None: its creation was cut short."""

    number: int
    id: str | None
    size: int
    submitted_at: float


class Store:
    """The open database; this process is one owner of claims."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.machine = _machine()
        self.owner = f"{self.machine}:{os.getpid()}:{uuid.uuid4().hex}"
        with self._naming_the_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            self.db.row_factory = sqlite3.Row
            self.db.execute("PRAGMA journal_mode = WAL")
            self._refuse_damaged()
            self._make_tables()

    def close(self) -> None:
        self.db.close()

    def _refuse_damaged(self) -> None:
        """A page that is damaged may be read much later, or its rows be missed in an index and be bought again."""
        found = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))

    def _make_tables(self) -> None:
        with self._transaction():
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self.db.execute(statement)
            elif version != VERSION:
                raise LabelError(
                    f"{self.path} has version {version}, expected {VERSION}: set `labels.store` to another"
                )

    # ------------------------------------------------------------------------------------------- transactions

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            is_in_the_way = isinstance(error, OSError | sqlite3.OperationalError)
            advice = (
                "Check that its folder can be written and has room, and that no other program holds it."
                if is_in_the_way
                else "It is damaged, or no store of labels: restore a copy, try `sqlite3 FILE .recover`, or move it "
                "away (what was paid for is then asked again)."
            )
            raise LabelError(f"the store of labels {self.path} cannot be used ({error}). {advice}") from error

    @contextlib.contextmanager
    def _transaction(self, durable: bool = True) -> Iterator[None]:
        """All of it or nothing, and no other process in between. It outlives a killed process in any case, and if
        `durable` a power cut too, which costs a few milliseconds: answers are, claims need not be."""
        with self._naming_the_file():
            self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    def _read(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        with self._naming_the_file():
            return self.db.execute(query, tuple(values)).fetchall()

    # ------------------------------------------------------------------------------------------- what is there

    def rows(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows of those keys that have one."""
        found = {}
        for key in keys:
            for row in self._read("SELECT * FROM requests WHERE key = ?", [key]):
                with self._naming_the_file():
                    answer = None if row["answer"] is None else _opened(key, row["answer"])
                found[key] = Row(row["state"], answer, row["reason"], row["batch"])
        return found

    def spend(self, study: str) -> Spend:
        """What a study has paid, may have paid and is about to pay."""
        with self._naming_the_file():
            return self._spend("study = ?", [study])

    def spend_on(self, keys: Collection[str]) -> Spend:
        """The same of some requests, whoever paid: it depends on them alone, so two equal runs say the same."""
        with self._naming_the_file():
            return self._spend("key IN (SELECT value FROM json_each(?))", [json.dumps(list(keys))])

    def _spend(self, where: str, values: list[str]) -> Spend:
        paid = self.db.execute(
            "SELECT ifnull(sum(received), 0), ifnull(sum(input_tokens), 0), ifnull(sum(output_tokens), 0), "
            "total(dollars * received), total(dollars * (1 - received)) FROM payments WHERE " + where, values
        ).fetchone()  # fmt: skip
        reserved = self.db.execute("SELECT total(reserved) FROM requests WHERE " + where, values).fetchone()[0]
        return Spend(*paid, reserved)

    # ------------------------------------------------------------------------------------------- buying

    def claim(self, costs: Mapping[str, float], study: str, budget: float) -> Claims:
        """Claims requests and reserves their worst cases in dollars, in order, as long as the budget allows.

        Left out are those already answered or in a batch, and those another living process has claimed. A request this
        process holds already is claimed for one attempt more.
        """
        claimed: list[str] = []
        with self._transaction(durable=False):
            bound = self._spend("study = ?", [study]).bound
            for key, cost in costs.items():
                row = self.db.execute("SELECT * FROM requests WHERE key = ?", [key]).fetchone()
                mine = row is not None and row["state"] == "claimed" and row["owner"] == self.owner
                if row is not None and not mine and not self._is_free(row):
                    continue
                if row is not None and row["reserved"]:  # its process died in the middle
                    self._maybe_paid(row)
                    self.db.execute("UPDATE requests SET reserved = 0 WHERE key = ?", [key])
                if bound + cost > budget + ROUNDING_DOLLARS:
                    return Claims(claimed, True)
                bound += cost
                self._write_claim(key, study, cost, 1 + (row["attempts"] if mine else 0))
                claimed.append(key)
        return Claims(claimed, False)

    def _write_claim(self, key: str, study: str, cost: float, attempts: int) -> None:
        now = time.time()
        self.db.execute(
            "INSERT INTO requests (key, state, study, attempts, owner, claimed_at, reserved, updated_at) "
            "VALUES (?, 'claimed', ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state, "
            "study = excluded.study, attempts = excluded.attempts, owner = excluded.owner, batch = NULL, "
            "claimed_at = excluded.claimed_at, reserved = excluded.reserved, updated_at = excluded.updated_at",
            [key, study, attempts, self.owner, now, cost, now],
        )

    def _is_free(self, row: sqlite3.Row) -> bool:
        return row["state"] == "failed" or (row["state"] == "claimed" and not self._is_alive(row))

    def _is_alive(self, row: sqlite3.Row) -> bool:
        if time.time() - row["claimed_at"] > CLAIM_SECONDS:
            return False
        machine, pid, _ = row["owner"].rsplit(":", 2)
        return machine != self.machine or _runs(int(pid))

    def beat(self) -> None:
        """Keeps this process's claims alive."""
        with self._transaction(durable=False):
            self.db.execute(
                "UPDATE requests SET claimed_at = ? WHERE owner = ? AND state = 'claimed'", [time.time(), self.owner]
            )

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Writes what came of attempts: payment and answer together. What is answered stays so, and a claim that went
        to another process in the meantime is changed by an answer alone."""
        with self._transaction():
            for settled in settlements:
                row = self.db.execute("SELECT * FROM requests WHERE key = ?", [settled.key]).fetchone()
                if settled.payment is not None:
                    self._write_payment(settled.key, row["study"], settled.payment, received=1)
                if row["state"] == "answered" or (settled.answer is None and not self._holds(row, settled.batch)):
                    continue
                state = "answered" if settled.answer is not None else "claimed" if settled.again else "failed"
                answer = None if settled.answer is None else _sealed(settled.key, settled.answer)
                now = time.time()
                self.db.execute(
                    "UPDATE requests SET state = ?, answer = ?, reason = ?, reserved = 0, owner = ?, claimed_at = ?, "
                    "updated_at = ? WHERE key = ?",
                    [state, answer, settled.reason, self.owner, now, now, settled.key],
                )

    def _holds(self, row: sqlite3.Row, batch: int | None) -> bool:
        if row["state"] == "batched":
            return row["batch"] == batch
        return row["state"] == "claimed" and row["owner"] == self.owner

    def _write_payment(self, key: str, study: str, payment: Payment, received: int) -> None:
        tokens = (payment.input_tokens, payment.output_tokens)
        self.db.execute(
            "INSERT OR IGNORE INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [payment.answer_id, key, study, received, *tokens, payment.dollars, time.time()],
        )

    def _maybe_paid(self, row: sqlite3.Row) -> None:
        self._write_payment(row["key"], row["study"], Payment(f"none-{uuid.uuid4().hex}", 0, 0, row["reserved"]), 0)

    def unanswered(self, key: str) -> None:
        """An attempt was sent and no answer came: its worst case is put down as possibly paid. The reservation stays,
        for the next attempt."""
        with self._transaction():
            self._maybe_paid(self.db.execute("SELECT * FROM requests WHERE key = ?", [key]).fetchone())

    def release(self, reason: str) -> None:
        """Gives up this process's claims. An attempt still under way may have been paid for."""
        with self._transaction():
            mine = "FROM requests WHERE owner = ? AND state = 'claimed'"
            for row in self.db.execute(f"SELECT * {mine} AND reserved > 0", [self.owner]).fetchall():
                self._maybe_paid(row)
            self.db.execute(
                "UPDATE requests SET state = 'failed', reserved = 0, reason = ifnull(reason, ?) "
                "WHERE owner = ? AND state = 'claimed'",
                [reason, self.owner],
            )

    # ------------------------------------------------------------------------------------------- batches

    def open_batch(self, keys: Collection[str]) -> Batch:
        """Writes down that claimed requests are about to be sent as one batch."""
        now = time.time()
        with self._transaction():
            values = [self.owner, len(keys), now]
            row = self.db.execute("INSERT INTO batches (owner, size, submitted_at) VALUES (?, ?, ?)", values)
            change = "UPDATE requests SET state = 'batched', batch = ?, updated_at = ? WHERE key = ?"
            self.db.executemany(change, [[row.lastrowid, now, key] for key in keys])
        return Batch(row.lastrowid, None, len(keys), now)

    def name_batch(self, number: int, batch_id: str) -> None:
        """The service has taken the batch; from now on any process can fetch its results."""
        with self._transaction():
            self.db.execute("UPDATE batches SET id = ? WHERE number = ?", [batch_id, number])

    def drop_batch(self, number: int, reason: str, maybe_paid: bool = False) -> None:
        """The service has no such batch: its unsettled requests are free to be asked again."""
        with self._transaction():
            unsettled = "FROM requests WHERE batch = ? AND state = 'batched'"
            for row in self.db.execute(f"SELECT * {unsettled} AND reserved > 0", [number]).fetchall():
                if maybe_paid:
                    self._maybe_paid(row)
            self.db.execute(
                "UPDATE requests SET state = 'failed', reserved = 0, reason = ? WHERE batch = ? AND state = 'batched'",
                [reason, number],
            )

    def batches_of(self, keys: Iterable[str]) -> list[Batch]:
        """Batches in which some of these requests are still to be settled. One that another living process is just
        creating is left out."""
        numbers = sorted({row.batch for row in self.rows(keys).values() if row.state == "batched"} - {None})
        found = [self._read("SELECT * FROM batches WHERE number = ?", [number])[0] for number in numbers]
        return [
            Batch(row["number"], row["id"], row["size"], row["submitted_at"])
            for row in found
            if row["id"] is not None or not self._is_being_created(row)
        ]

    def _is_being_created(self, row: sqlite3.Row) -> bool:
        machine, pid, _ = row["owner"].rsplit(":", 2)
        is_young = time.time() - row["submitted_at"] < 3600  # creation, retries included, takes minutes at most
        return row["owner"] != self.owner and is_young and (machine != self.machine or _runs(int(pid)))

    def unsettled(self, number: int) -> set[str]:
        """Keys of a batch whose result is not in yet."""
        return {row["key"] for row in self._read(
            "SELECT key FROM requests WHERE batch = ? AND state = 'batched'", [number]
        )}  # fmt: skip

    def known_batches(self) -> set[str]:
        return {row["id"] for row in self._read("SELECT id FROM batches WHERE id IS NOT NULL")}


def _sealed(key: str, answer: Mapping[str, Any]) -> str:
    text = json.dumps(answer)
    return f"{digest(key + text)} {text}"


def _opened(key: str, sealed: str) -> Any:
    """
    Raises:
        sqlite3.DatabaseError: the answer is not the one that was written for this key.
    """
    if sealed.startswith("{"):  # from before there were digests
        return json.loads(sealed)
    found, _, text = sealed.partition(" ")
    if found != digest(key + text):
        raise sqlite3.DatabaseError(f"the answer of the request {key} is damaged")
    return json.loads(text)


def _machine() -> str:
    """This machine, and on Linux the container: process ids mean something within it alone."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    return socket.gethostname()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
