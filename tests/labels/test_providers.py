"""Who labels is what the config says, and money is spent by nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `paid_study`

import pytest  # noqa: E402
from paid_study import ROOT, SECRET, paid_settings  # noqa: E402

from reasondiff.labels.providers import open_provider  # noqa: E402
from reasondiff.labels.store import LabelError  # noqa: E402

URL = "http://127.0.0.1:9"


@pytest.mark.parametrize("key", [None, "", "  "])
def test_claude_without_a_key_is_an_error_that_names_the_free_way(tmp_path, monkeypatch, key):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    with pytest.raises(LabelError, match="labels.provider: offline"):
        open_provider(paid_settings(URL, tmp_path), "study")
    assert not list(tmp_path.iterdir()), "before anything else"


def test_a_key_in_the_environment_alone_spends_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    offline = paid_settings(URL, tmp_path).model_copy(update={"provider": "offline"})
    assert open_provider(offline, "study").measure == "pattern fit"
    assert not list(tmp_path.iterdir())


def test_with_a_key_claude_measures_interpretability(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    assert open_provider(paid_settings(URL, tmp_path), "study").measure == "interpretability"


def test_the_sdk_is_loaded_for_claude_alone():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import reasondiff.labels.providers, "
        "reasondiff.labels.spending, reasondiff.labels.prompts, reasondiff.labels.store; "
        "print({'anthropic', 'httpx2', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
