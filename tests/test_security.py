"""Is nothing run that was only to be read, and does no key get out?

That text on pages is inert is tested where pages are: tests/report/test_inert.py, tests/graphs/test_inert.py.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from fake_anthropic import FakeAnthropic
from running import ROOT

sys.path.insert(0, str(ROOT / "tests/labels"))  # for `paid_study`

from paid_study import SECRET, paid_settings, subjects  # noqa: E402

import reasondiff  # noqa: E402
from reasondiff.dictionaries.checkpoint import read_checkpoint  # noqa: E402
from reasondiff.dictionaries.formats import import_crosscoder  # noqa: E402
from reasondiff.graphs.graph import read_graph  # noqa: E402
from reasondiff.graphs.sources import read_file, read_folder  # noqa: E402
from reasondiff.job import job  # noqa: E402
from reasondiff.labels.claude import ClaudeProvider  # noqa: E402
from reasondiff.store import ArtefactError, read_arrays, read_card, read_table, read_tensors  # noqa: E402

CODE = sorted({*(ROOT / "scripts").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")})
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]

# ------------------------------------------------------------------------------------------------ what the code may do

PICKLING = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
RUNNING = {"eval", "exec", "compile", "__import__"}
ALLOWED = {
    ("reasondiff/dictionaries/formats.py", "torch.load"),  # the importer of other people's checkpoints: weights alone
}


def dotted(node: ast.expr) -> str:
    """`torch.load` of the expression; nothing of one that is no plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}" if dotted(node.value) else ""
    return node.id if isinstance(node, ast.Name) else ""


def risks(tree: ast.AST) -> set[str]:
    """What in a piece of code could run what it reads."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            found |= {module for module in modules if module.split(".")[0] in PICKLING}
            found |= {"torch.load" for name in names if getattr(node, "module", "") == "torch" and name == "load"}
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in RUNNING or called in ("os.system", "os.popen"):
            found.add(called)
        if called.endswith(("torch.load", "torch.save", "read_pickle", "to_pickle")):
            found.add("torch.load" if given.get("weights_only") == "True" else f"{called} of anything")
        if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
            is_safe = called == "yaml.load" and given.get("Loader") in ("yaml.SafeLoader", "yaml.BaseLoader")
            found |= set() if is_safe else {called}
        for name, safe in (("allow_pickle", "False"), ("trust_remote_code", "False"), ("shell", "False")):
            found |= {name} if given.get(name, safe) != safe else set()
    return found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch\ntorch.load(p)", "torch.load of anything"),
        ("torch.load(p, weights_only=False)", "torch.load of anything"),
        ("torch.load(p, weights_only=True)", "torch.load"),
        ("torch.save(x, p)", "torch.save of anything"),
        ("from torch import load", "torch.load"),
        ("def f():\n    import pickle", "pickle"),
        ("from joblib import dump", "joblib"),
        ("np.load(p, allow_pickle=True)", "allow_pickle"),
        ("pd.read_pickle(p)", "pd.read_pickle of anything"),
        ("yaml.load(t, Loader=yaml.Loader)", "yaml.load"),
        ("yaml.full_load(t)", "yaml.full_load"),
        ("eval(t)", "eval"),
        ("os.system(t)", "os.system"),
        ("f(trust_remote_code=True)", "trust_remote_code"),
        ("f(trust_remote_code=wanted)", "trust_remote_code"),
        ("subprocess.run(c, shell=True)", "shell"),
    ],
)
def test_the_search_for_risks_finds_them(code, found):
    assert risks(ast.parse(code)) == {found}


@pytest.mark.parametrize(
    "code", ["model.eval()", "np.load(p)", "yaml.safe_load(t)", "yaml.load(t, Loader=yaml.BaseLoader)", "re.compile(p)"]
)
def test_the_search_for_risks_passes_what_is_none(code):
    assert risks(ast.parse(code)) == set()


def test_nothing_but_the_importer_could_run_what_it_reads():
    found = {(path.relative_to(ROOT / "scripts").as_posix() if "scripts" in path.parts else path.name, risk)
             for path in CODE for risk in risks(ast.parse(path.read_text(encoding="utf-8")))}  # fmt: skip
    assert len(CODE) > 200
    assert found == ALLOWED


def test_rules_start_no_shell_and_no_code_of_the_hub():
    for path in RULES:
        assert not re.search(r"^\s*shell:|\bshell\(|trust_remote_code|torch\.load|pickle", path.read_text(), re.M), path


# ------------------------------------------------------------------------------------------------ malicious files


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def trap(tmp_path):
    """(a pickle that would write a file, that file)."""
    ran = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Malicious(ran)))
    assert ran.exists(), "the trap itself does not work"
    ran.unlink()
    return Malicious(ran), ran


READERS = {
    "graph.npz": read_graph,
    "arrays.npz": read_arrays,
    "tokens.npz": reasondiff.load,
    "graph.json": read_file,
    "latents.parquet": read_table,
    "latents.tsv": read_table,
    "crosscoder.safetensors": reasondiff.load,
    "sae.safetensors": reasondiff.load,
    "weights.safetensors": read_tensors,
    "card.safetensors": read_card,
    "checkpoint.safetensors": read_checkpoint,
    "ae.pt": import_crosscoder,
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", READERS)
def test_a_pickle_in_the_place_of_an_artefact_is_refused_and_not_run(tmp_path, trap, name, protocol):
    malicious, ran = trap
    (tmp_path / name).write_bytes(pickle.dumps(malicious, protocol=protocol))
    with pytest.raises(ArtefactError, match=re.escape(name.split(".")[0]) if name != "sae.safetensors" else "cfg|sae"):
        READERS[name](tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("read", [import_crosscoder, lambda path: read_folder(path.parent), read_file])
def test_a_pickle_of_torch_is_refused_and_not_run(tmp_path, trap, read):
    malicious, ran = trap
    torch.save({"encoder.weight": malicious}, tmp_path / "ae.pt")
    with pytest.raises(ArtefactError, match=re.escape("ae.pt")):
        read(tmp_path / "ae.pt")
    assert not ran.exists()


def test_arrays_of_objects_are_refused_and_not_run(tmp_path, trap):
    import numpy as np

    malicious, ran = trap
    np.savez(tmp_path / "graph.npz", kind=np.array([malicious], dtype=object))
    for read in (read_graph, read_arrays):
        with pytest.raises(ArtefactError, match=re.escape("graph.npz")):
            read(tmp_path / "graph.npz")
    assert not ran.exists()


# ------------------------------------------------------------------------------------------------ keys

A_KEY = re.compile(
    r"sk-ant-[\w-]{8,}|hf_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|BEGIN [A-Z ]*PRIVATE KEY"
)
MADE_UP = {"sk-ant-made-up-0123456789"}


def test_no_key_is_written_into_the_repository():
    folders = ("config", "scripts", "workflow", "docs", "benchmarks", "envs", "tests", ".ci", ".github")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    texts = [path for path in files if path.suffix not in (".pyc", ".nbc", ".nbi", ".png")]
    assert len(texts) > 300
    for path in texts:
        found = set(A_KEY.findall(path.read_text(encoding="utf-8", errors="replace")))
        assert found <= MADE_UP | {SECRET}, f"{path} holds what looks like a key"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_no_setting_has_a_place_for_a_key(path):
    def names(value):
        if isinstance(value, dict):
            yield from value
            value = list(value.values())
        for one in value if isinstance(value, list) else []:
            yield from names(one)

    found = {name for name in names(yaml.safe_load(path.read_text())) if isinstance(name, str)}
    assert not [name for name in found if re.search(r"(^|_)(key|secret|password|token)$|api_key", name)]


def files_with(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_the_key_gets_into_no_log_store_label_or_run_fact_even_when_the_service_refuses_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    output, log = tmp_path / "labels.json", tmp_path / "job.log"
    script = SimpleNamespace(
        log=[str(log)], output=[str(output)], rule="label_latents", threads=1, scriptdir=str(tmp_path),
        resources={}, wildcards={"folder": "x"},
    )  # fmt: skip
    with FakeAnthropic([{"kind": "401", "times": 50}]) as service, pytest.raises(Exception) as refused:
        with job(script):
            logging.getLogger("anthropic").debug("talkative")
            ClaudeProvider(paid_settings(service, tmp_path), "study").label(subjects(2))
    assert SECRET in service.keys, "the service was never asked"
    assert SECRET not in str(refused.value)
    with job(script):
        output.write_text("{}")
    assert json.loads(Path(f"{output}.run.json").read_text())["rule"] == "label_latents"
    assert log.is_file() and files_with(tmp_path, SECRET) == []
    assert SECRET in os.environ["HF_TOKEN"]


# ------------------------------------------------------------------------------------------------ the audit


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (None, 0, "NOT AUDITED"),
        ({"skip_reason": "not found on PyPI"}, 0, "NOT AUDITED: the database of advisories does not answer"),
        ({"vulns": []}, 0, "0 advisories apply"),
        ({"vulns": [{"id": "PYSEC-1", "fix_versions": ["9"]}]}, 1, "PYSEC-1, fixed in 9"),
    ],
)
def test_the_audit_fails_for_an_advisory_and_is_loud_when_nothing_was_looked_at(
    monkeypatch, capsys, answer, status, told
):
    script = runpy.run_path(str(ROOT / ".ci/audit"), run_name="audit")
    asked = []

    def audit(requirements):
        asked.append(requirements.splitlines())
        named = [line.split("==") for line in asked[-1]]
        return None if answer is None else [{"name": name, "version": version, **answer} for name, version in named]

    monkeypatch.setitem(script["main"].__globals__, "audit", audit)
    monkeypatch.setitem(script["main"].__globals__, "VENV", Path(sys.prefix))
    monkeypatch.setattr(Path, "exists", lambda self: True)
    with pytest.raises(SystemExit) as ended:
        script["main"]()
    assert ended.value.code == status and told in capsys.readouterr().out
    assert len(asked[0]) == 1 and (len(asked) == 1 or len(asked[1]) > 100)
