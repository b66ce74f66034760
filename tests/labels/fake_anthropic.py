"""A local stand-in for the Messages, Batches and count_tokens interfaces, with faults by script.

python tests/labels/fake_anthropic.py [--port 8000] [--delay 0.2] [--faults '[{"kind": "429", "retry_after": 0.1}]']

prints its URL, for `labels.anthropic.base_url`; any key will do. `GET /counts` says what it billed.

A label is "the token W and alike" of the most frequent firing token, a verdict is whether W stands in the passage.
A fault is used up by `times` requests (default 1, -1: for ever) that hold `match` in their prompt, if given:
429, 529 and other statuses ("retry_after" seconds), drop (no answer, not billed), cut (billed, then dropped), slow
("seconds"), refusal, max_tokens, json, schema, length (answers that cannot be used, billed), lost_batch (created, then
dropped), and in batches: errored, expired, canceled (not billed).
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BATCH_FAULTS = ("errored", "expired", "canceled")
ANSWER_FAULTS = ("refusal", "max_tokens", "json", "schema", "length")


class FakeAnthropic:
    """The service and its books. Use as a context manager; `url` is its address."""

    def __init__(self, faults=(), delay=0.0, polls=2, port=0):
        self.faults = [{"times": 1, **fault} for fault in faults]
        self.delay, self.polls = delay, polls
        self.lock = threading.Lock()
        self.batches = {}
        self.seen = Counter()  # attempts at each path
        self.answered = Counter()  # billed answers to each question, by `question_of`
        self.billed = Counter()  # input and output tokens, answers, and the same in batches
        self.keys = set()  # that were presented
        self.under_way = self.most_under_way = 0
        handler = type("Handler", (_Handler,), {"service": self})
        self.server = _Server(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fault_for(self, prompt, kinds=None):
        """Uses up the first fault in the script that fits."""
        with self.lock:
            for fault in self.faults:
                fits = fault.get("match", "") in prompt and (kinds is None or fault["kind"] in kinds)
                if fault["times"] != 0 and fits and (kinds or fault["kind"] not in BATCH_FAULTS):
                    fault["times"] -= 1
                    return fault
        return None

    def bill(self, body, message, batch):
        with self.lock:
            usage = message["usage"]
            self.answered[question_of(body)] += 1
            self.billed.update(answers=1, input=usage["input_tokens"], output=usage["output_tokens"])
            if batch:
                self.billed.update(batch_input=usage["input_tokens"], batch_output=usage["output_tokens"])

    def dollars(self, prices):
        """What everything billed costs."""
        full = self.billed["input"] * prices.input + self.billed["output"] * prices.output
        halved = self.billed["batch_input"] * prices.input + self.billed["batch_output"] * prices.output
        return (full - (1 - prices.batch_factor) * halved) / 1e6

    def counts(self):
        with self.lock:
            return {
                "seen": dict(self.seen), "billed": dict(self.billed), "answered": dict(self.answered),
                "most_under_way": self.most_under_way,
            }  # fmt: skip


def question_of(body):
    """A question's name, the same when it is asked again with the reason why its first answer was of no use."""
    prompt = body["messages"][0]["content"].split("</data>")[0]
    return sha256(f"{body['system']}{prompt}".encode()).hexdigest()[:16]


def input_tokens(body):
    return len(json.dumps([body.get("system"), body["messages"]])) // 4 + 30


def make_message(body, fault=None):
    """The answer to a request; a fault spoils it."""
    kind = fault["kind"] if fault else None
    text = json.dumps(right_answer(body, short=kind == "length"))
    if kind == "schema":
        text = json.dumps({"label": "short", "explanation": 7, "verdicts": "yes"})
    elif kind in ("json", "max_tokens"):
        text = text[: len(text) // 2]
    elif kind == "refusal":
        text = ""
    stop = kind if kind in ("refusal", "max_tokens") else "end_turn"
    return {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": body["model"],
        "content": [{"type": "text", "text": text}] if text else [], "stop_reason": stop, "stop_sequence": None,
        "usage": {"input_tokens": input_tokens(body), "output_tokens": len(text) // 4 + 1},
    }  # fmt: skip


def right_answer(body, short=False):
    data = json.loads(body["messages"][0]["content"].split("<data>\n")[1].split("\n</data>")[0])
    if "label" not in data:
        firing = Counter(p["fires"] for row in data["passages"] for p in row["passage"] if isinstance(p, dict))
        word = ("".join(firing.most_common(1)[0][0].split()) if firing else "") or "space"
        return {"label": f"the token {word} and alike", "explanation": f"It fires on {word}."}
    words = data["label"].split()
    word = words[2] if len(words) > 2 else words[-1]
    passages = data["passages"][:-1] if short else data["passages"]
    return {"verdicts": [word in _judged_text(row["passage"]) for row in passages]}


def _judged_text(passage):
    """The text of a passage, or its marked tokens where it has some."""
    if isinstance(passage, str):
        return passage
    return " ".join(part["marked"] for part in passage if isinstance(part, dict))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a burst of connections is not refused

    def handle_error(self, *_):
        """A client that was killed is none of the service's errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeAnthropic

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        service, path = self.service, self.path.split("?")[0]
        with service.lock:
            service.seen[path] += 1
            service.keys.add(self.headers.get("x-api-key") or self.headers.get("authorization", "").split()[-1])
            service.under_way += 1
            service.most_under_way = max(service.most_under_way, service.under_way)
        try:
            if path == "/v1/messages":
                self._messages(body)
            elif path == "/v1/messages/count_tokens":
                self._send({"input_tokens": input_tokens(body)})
            elif path == "/v1/messages/batches":
                self._create_batch(body)
            else:
                self._error(404)
        finally:
            with service.lock:
                service.under_way -= 1

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["counts"]:
            self._send(self.service.counts())
        elif parts[:3] == ["v1", "messages", "batches"]:
            self._read_batch(parts[3:])
        else:
            self._error(404)

    # -------------------------------------------------------------------------------------- messages

    def _messages(self, body):
        fault = self.service.fault_for(body["messages"][0]["content"])
        kind = fault["kind"] if fault else None
        time.sleep(fault["seconds"] if kind == "slow" else self.service.delay)
        if kind and kind.isdigit():
            return self._error(int(kind), fault.get("retry_after"))
        if kind == "drop" or self._is_gone():
            return self._drop()
        message = make_message(body, fault)
        self.service.bill(body, message, batch=False)
        self._drop() if kind == "cut" else self._send(message)

    def _is_gone(self):
        """Whether the client has closed the connection: a killed one gets no answer, and none is billed."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _drop(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    # -------------------------------------------------------------------------------------- batches

    def _create_batch(self, body):
        service = self.service
        fault = service.fault_for("", ("lost_batch", "drop", "429", "500", "401"))
        if fault and fault["kind"].isdigit():
            return self._error(int(fault["kind"]), fault.get("retry_after"))
        if fault and fault["kind"] == "drop":
            return self._drop()
        batch_id = f"msgbatch_{uuid.uuid4().hex}"
        with service.lock:
            service.batches[batch_id] = {
                "items": body["requests"], "left": service.polls, "created": datetime.now(UTC), "results": None,
            }  # fmt: skip
        self._drop() if fault else self._send(self._batch_facts(batch_id))

    def _read_batch(self, parts):
        service = self.service
        if not parts:
            listed = [self._batch_facts(name) for name in reversed(service.batches)]
            return self._send({"data": listed, "has_more": False, "first_id": None, "last_id": None})
        batch = service.batches.get(parts[0])
        if batch is None:
            return self._error(404)
        if parts[1:] == ["results"]:
            return self._send_bytes("".join(json.dumps(r) + "\n" for r in batch["results"]).encode())
        with service.lock:
            batch["left"] -= 1
            is_due = batch["left"] <= 0 and batch["results"] is None
            if is_due:
                batch["results"] = []
        if is_due:
            batch["results"] = [self._result(item) for item in reversed(batch["items"])]
        return self._send(self._batch_facts(parts[0]))

    def _result(self, item):
        body = item["params"]
        fault = self.service.fault_for(body["messages"][0]["content"], (*BATCH_FAULTS, *ANSWER_FAULTS))
        if fault and fault["kind"] in BATCH_FAULTS:
            error = {"type": "error", "error": {"type": "api_error", "message": "it went wrong"}}
            details = {"error": error} if fault["kind"] == "errored" else {}
            return {"custom_id": item["custom_id"], "result": {"type": fault["kind"], **details}}
        message = make_message(body, fault)
        self.service.bill(body, message, batch=True)
        return {"custom_id": item["custom_id"], "result": {"type": "succeeded", "message": message}}

    def _batch_facts(self, batch_id):
        batch = self.service.batches[batch_id]
        kinds = Counter(result["result"]["type"] for result in batch["results"] or ())
        counts = {kind: kinds[kind] for kind in ("succeeded", "errored", "expired", "canceled")}
        left = 0 if batch["results"] else len(batch["items"])
        status = "ended" if batch["results"] else "in_progress"
        return {
            "id": batch_id, "type": "message_batch", "processing_status": status,
            "request_counts": {"processing": left, **counts}, "created_at": batch["created"].isoformat(),
            "expires_at": (batch["created"] + timedelta(days=1)).isoformat(), "ended_at": None, "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.service.url}/v1/messages/batches/{batch_id}/results" if batch["results"] else None,
        }  # fmt: skip

    # -------------------------------------------------------------------------------------- answers

    def _error(self, status, retry_after=None):
        kinds = {401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
                 429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip
        said = f"status {status} for key {self.headers.get('x-api-key') or self.headers.get('authorization')}"
        error = {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": said}}
        self._send(error, status, {"retry-after": str(retry_after)} if retry_after else {})

    def _send(self, content, status=200, headers=None):
        self._send_bytes(json.dumps(content).encode(), status, headers)

    def _send_bytes(self, data, status=200, headers=None):
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=json.loads, default=[])
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    arguments = parser.parse_args()
    service = FakeAnthropic(arguments.faults, arguments.delay, port=arguments.port)
    print(service.url, flush=True)
    service.server.serve_forever()


if __name__ == "__main__":
    main()
