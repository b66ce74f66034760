"""How long do 1,000 labels take from a service that answers in 200 ms, ten at once?

python benchmarks/labels.py [--labels 1000] [--delay 0.2] [--concurrency 10]

The service is the tests' own (tests/labels/fake_anthropic.py), in a process of its own; the SDK, the store and the
budget are the real ones. It cannot be done in less than labels x delay / concurrency, 20 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from measure import machine

TESTS = Path(__file__).resolve().parents[1] / "tests" / "labels"
sys.path.insert(0, str(TESTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=10)
    arguments = parser.parse_args()
    os.environ["ANTHROPIC_API_KEY"] = "any"
    command = [sys.executable, str(TESTS / "fake_anthropic.py"), "--delay", str(arguments.delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            seconds, labelled, dollars = buy(url, arguments)
            with urllib.request.urlopen(f"{url}/counts") as answer:
                counts = json.load(answer)
        finally:
            server.terminate()
    sent, twice = counts["seen"]["/v1/messages"], sum(times > 1 for times in counts["answered"].values())
    floor = arguments.labels * arguments.delay / arguments.concurrency
    milliseconds = round(arguments.delay * 1000)
    print(f"**{arguments.labels} labels, {milliseconds} ms each, {arguments.concurrency} at once** ({machine()})")
    print("\n| labels | seconds | least possible | requests sent | sent twice | dollars |\n|---|---|---|---|---|---|")
    print(f"| {labelled} | {seconds:.1f} | {floor:.1f} | {sent} | {twice} | {dollars:.2f} |")


def buy(url: str, arguments: argparse.Namespace) -> tuple[float, int, float]:
    """Seconds, labels that arrived, dollars."""
    from paid_study import paid_settings, subjects

    from reasondiff.labels.claude import ClaudeProvider
    from reasondiff.labels.questions import Label

    with tempfile.TemporaryDirectory() as folder:
        settings = paid_settings(url, Path(folder), concurrency=arguments.concurrency, budget_dollars=1000.0)
        provider = ClaudeProvider(settings, "benchmark")
        started = time.perf_counter()
        labels = provider.label(subjects(arguments.labels))
        seconds = time.perf_counter() - started
        return seconds, sum(isinstance(label, Label) for label in labels), provider.spend().dollars


if __name__ == "__main__":
    main()
