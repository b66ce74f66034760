"""Settings, subjects and a process of its own for tests that buy labels from the local service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from reasondiff.config import Labels
from reasondiff.labels.questions import Example, Subject

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-ant-the-key-of-the-tests"


def paid_settings(service, folder, **changes):
    """The default study's settings of labels, with Claude at the service; `changes` are of its section `anthropic`."""
    labels = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["labels"]
    labels.update(provider="anthropic", store=str(folder / "labels.sqlite"))
    url = service if isinstance(service, str) else service.url
    fixed = {"max_tokens": 400, "prices": {"input": 3.0, "output": 15.0, "batch_factor": 0.5}}
    labels["anthropic"].update({"base_url": url, "model": "claude-made-up", "poll_seconds": 0.02, **fixed, **changes})
    return Labels.model_validate(labels)


def subjects(count):
    """Latents that fire on tokens of their own: `word0`, `word1`, ..."""
    return [
        Subject(0, index, (Example(("So", " we", f" word{index}"), (0.0, 0.0, 2.0), "think"),))
        for index in range(count)
    ]


def expected_texts(count):
    return [f"the token word{index} and alike" for index in range(count)]


def texts(labels):
    return [label.text for label in labels]


_BUY = """
import json, os, signal, sys
sys.path[:0] = json.loads(sys.argv[1])
from paid_study import Labels, subjects
from reasondiff.labels.claude import ClaudeProvider
from reasondiff.labels import store
if sys.argv[4]:
    setattr(store.Store, sys.argv[4], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
labels = ClaudeProvider(Labels.model_validate_json(sys.argv[2]), "killed").label(subjects(int(sys.argv[3])))
print(json.dumps([label.text for label in labels]))
"""


def start_buying(settings, count, killed_at=""):
    """Labels in a process of its own; `killed_at` names a method of the store at which it kills itself."""
    path = json.dumps([str(ROOT / "scripts"), str(Path(__file__).parent)])
    command = [sys.executable, "-c", _BUY, path, settings.model_dump_json(), str(count), killed_at]
    environment = {**os.environ, "ANTHROPIC_API_KEY": SECRET}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
