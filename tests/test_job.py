"""Every script leaves a log, its traceback when it fails, and run facts beside what it wrote."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.iocontainers import Log, OutputFiles, ResourceList, Wildcards

from reasondiff import job as job_module
from reasondiff.job import Preempted, job, preemption, prefer_library, progress

SCRIPTS = Path(job_module.__file__).parents[1]


class Rule:
    """What Snakemake gives a script, as far as `job` looks."""

    def __init__(self, folder, outputs=("out.tsv",), scriptdir=SCRIPTS):
        self.log = Log([str(folder / "logs" / "rule.log")])
        self.output = OutputFiles([str(folder / name) for name in outputs])
        self.wildcards = Wildcards(fromdict={"pair": "base-distill"})
        self.resources = ResourceList(fromdict={"gpu": 0, "mem_mb": 10})
        self.rule, self.threads, self.scriptdir = "score_latents", 1, str(scriptdir)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Handlers and CUDA_VISIBLE_DEVICES as they were, after each test."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(preemption, "came", False)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = before, level


def test_what_is_logged_lands_in_the_rules_log(tmp_path):
    rule = Rule(tmp_path)
    with job(rule) as log:
        log.info("2 latents")
        Path(rule.output[0]).write_text("x")
    text = Path(rule.log[0]).read_text()
    assert "rule score_latents" in text and "2 latents" in text and "done in" in text


def test_sigterm_ends_a_job_as_a_failed_one_and_leaves_the_handler_as_it_was(tmp_path):
    rule, before = Rule(tmp_path), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="run the same command again"), job(rule):
        os.kill(os.getpid(), signal.SIGTERM)
    assert "stopped by SIGTERM" in Path(rule.log[0]).read_text()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_loop_that_defers_sigterm_is_not_torn_and_can_ask_for_it(tmp_path):
    with pytest.raises(Preempted), job(Rule(tmp_path)), preemption.deferring():
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.came, "it goes on to where it can stop"
        preemption.stop()


def test_a_failure_is_in_the_log_with_its_traceback_and_raised_again(tmp_path):
    rule = Rule(tmp_path)
    with pytest.raises(ZeroDivisionError), job(rule):
        1 / 0  # noqa: B018
    text = Path(rule.log[0]).read_text()
    assert "Traceback" in text and "1 / 0" in text and "failed after" in text
    assert not (tmp_path / "out.tsv.run.json").exists()


def test_run_facts_stand_beside_every_output_and_not_inside(tmp_path):
    rule = Rule(tmp_path, outputs=("a.tsv", "b.json"))
    with job(rule):
        for name in rule.output:
            Path(name).write_text("same")
    facts = json.loads((tmp_path / "a.tsv.run.json").read_text())
    assert facts["rule"] == "score_latents" and facts["wildcards"] == {"pair": "base-distill"}
    assert facts["device"].startswith("cpu") and 0 < facts["peak_memory_gib"] < 100 and facts["seconds"] >= 0
    assert (tmp_path / "b.json.run.json").exists() and (tmp_path / "b.json").read_text() == "same"


def test_an_output_left_in_place_keeps_the_facts_of_the_run_that_made_it(tmp_path):
    rule = Rule(tmp_path, outputs=("kept.tsv", "new.tsv"))
    (tmp_path / "kept.tsv").write_text("from an earlier run")
    (tmp_path / "kept.tsv.run.json").write_text("earlier")
    with job(rule):
        (tmp_path / "new.tsv").write_text("now")
    assert (tmp_path / "kept.tsv.run.json").read_text() == "earlier"
    assert json.loads((tmp_path / "new.tsv.run.json").read_text())["rule"] == "score_latents"


def test_another_reasondiff_than_the_workflows_own_is_refused(tmp_path):
    (tmp_path / "scripts" / "reasondiff").mkdir(parents=True)
    rule = Rule(tmp_path, scriptdir=tmp_path / "scripts")
    with pytest.raises(RuntimeError, match="another reasondiff.*pip install -e"), job(rule):
        pytest.fail("the script must not run")
    assert "another reasondiff" in Path(rule.log[0]).read_text()


def test_a_rule_without_gpu_sees_none(tmp_path):
    import os

    with job(Rule(tmp_path)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_rule_that_wants_more_gpus_than_there_are_says_so_in_its_log(tmp_path):
    rule = Rule(tmp_path)
    rule.resources = ResourceList(fromdict={"gpu": 2})
    with pytest.raises(RuntimeError, match="wants 2 GPU"), job(rule):
        pytest.fail("the script must not run")
    assert "wants 2 GPU" in Path(rule.log[0]).read_text()


def test_progress_yields_every_item_and_writes_rate_and_notes_to_the_log(monkeypatch, caplog):
    monkeypatch.setattr(job_module, "LOG_LINE_SECONDS", 0.0)
    steps = progress([10, 20, 30], "training", unit="tokens", unit_scale=512)
    with caplog.at_level(logging.INFO):
        for item in steps:
            steps.note(loss=1.0 / item)
    assert [record.message.split(",")[0] for record in caplog.records] == [f"training: {n}/3" for n in (1, 2, 3)]
    assert "tokens/s" in caplog.text and "s left" in caplog.text and "loss 0.05" in caplog.text


def test_progress_works_on_a_stream_of_unknown_length(monkeypatch, caplog):
    monkeypatch.setattr(job_module, "LOG_LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    assert caplog.records[-1].message.startswith("reading: 3,") and "left" not in caplog.text


def test_scripts_find_the_workflows_own_library_before_an_installed_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    prefer_library(tmp_path)
    prefer_library(tmp_path)
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(tmp_path), "elsewhere"])
    (tmp_path / "reasondiff.py").write_text("ours = True\n")
    found = subprocess.run([sys.executable, "-c", "import reasondiff; print(reasondiff.ours)"], capture_output=True)
    assert found.stdout.strip() == b"True"
