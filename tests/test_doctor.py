"""Does the doctor see what is missing, and say what mends it?"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import yaml
from running import ROOT

from reasondiff import doctor
from reasondiff.config import load_study
from reasondiff.doctor import Finding

SMOKE = ROOT / "config/smoke.yaml"


def study_with(**changes):
    return load_study(yaml.safe_load(SMOKE.read_text()) | changes)


def only(findings) -> Finding:
    (one,) = findings
    return one


def states(findings) -> list[str]:
    return [one.state for one in findings]


@pytest.fixture
def path_with(monkeypatch):
    """`path_with("dot")`: these programs are on the path, no others."""

    def make(*programs):
        monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}" if name in programs else None)

    return make


# ------------------------------------------------------------------------------------------------ the machine


def test_another_python_is_missing_something(monkeypatch):
    assert only(doctor.check_python()).state == "ok"
    monkeypatch.setattr(doctor.sys, "version_info", (3, 13, 1))
    found = only(doctor.check_python())
    assert found.state == "missing" and "this is 3.13.1" in found.what and "python3.11" in found.remedy


def test_packages_that_are_absent_or_of_another_version_are_named(monkeypatch):
    locked = doctor.locked_versions(ROOT / "constraints.txt")
    assert locked["torch"] and locked["circuit-tracer"] == "0.5.0"
    installed = {**locked, "scipy": None, "numpy": "1.0", "torch": f"{locked['torch']}+cu128"}
    monkeypatch.setattr(doctor, "installed_version", lambda name: installed.get(name, locked.get(name)))
    found = {one.what.split()[1]: one for one in doctor.check_packages()}
    assert found["scipy"].state == "missing" and locked["scipy"] in found["scipy"].what
    assert found["numpy"].state == "note" and locked["numpy"] in found["numpy"].what
    assert "constraints.txt" in found["scipy"].remedy and "torch" not in found


@pytest.mark.parametrize(
    ("programs", "version", "state"),
    [((), None, "note"), (("sbatch",), None, "missing"), (("sbatch",), "2.8.0", "ok")],
)
def test_the_plugin_for_slurm_is_needed_where_slurm_is(path_with, monkeypatch, programs, version, state):
    path_with(*programs)
    monkeypatch.setattr(doctor, "installed_version", lambda _name: version)
    assert only(doctor.check_slurm()).state == state


def test_graphviz_is_only_a_note(path_with):
    path_with()
    assert only(doctor.check_graphviz()).state == "note"
    path_with("dot")
    assert only(doctor.check_graphviz()).state == "ok"


def test_a_lock_that_was_left_behind_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert only(doctor.check_lock()).state == "ok"
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    assert only(doctor.check_lock()).state == "ok"
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    found = only(doctor.check_lock())
    assert found.state == "missing" and "--unlock" in found.remedy


# ------------------------------------------------------------------------------------------------ the study


def test_results_that_cannot_be_written_are_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert only(doctor.check_results(study_with())).state == "ok"
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing"

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = only(doctor.check_results(study_with()))
    assert found.state == "missing" and "Read-only file system" in found.what


def test_a_key_is_asked_for_where_claude_labels_and_is_never_shown(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert only(doctor.check_key(study_with())).state == "ok"
    paid = study_with(labels=yaml.safe_load(SMOKE.read_text())["labels"] | {"provider": "anthropic"})
    assert only(doctor.check_key(paid)).state == "missing"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    found = only(doctor.check_key(paid))
    assert found.state == "ok" and "secret" not in str(found)


def test_models_and_texts_of_this_machine_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(SMOKE.read_text())
    config["models"]["rl"] = {"stage": "local", "folder": "models/rl", "elicitations": ["think"]}
    config["text"]["traces"]["sources"]["mine"] = {"kind": "plain_files", "weight": 1.0, "files": ["a.txt"],
                                                   "column": None, "rows": None}  # fmt: skip
    found = list(doctor.check_files(load_study(config)))
    assert states(found) == ["missing", "missing"]
    assert "models.rl: models/rl" in found[0].what and "text.traces.sources.mine: no file a.txt" in found[1].what
    (tmp_path / "models/rl").mkdir(parents=True)
    (tmp_path / "models/rl/config.json").touch()
    (tmp_path / "a.txt").touch()
    assert list(doctor.check_files(load_study(config))) == []


def test_the_costs_of_a_study_are_those_of_its_table():
    cost = doctor.total_cost(study_with())
    assert cost["disk_gb"] > 0 and cost["host_gib"] > 0


@pytest.mark.parametrize(("needed", "state"), [(30.0, "ok"), (60.0, "missing"), (float("nan"), "note")])
def test_room_on_disk_is_compared_with_what_the_study_takes(tmp_path, monkeypatch, needed, state):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/smoke").mkdir(parents=True)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": int(50e9)}))
    assert only(doctor.check_disk(study_with(), {"disk_gb": needed, "scratch_gb": 5.0})).state == state


def test_what_is_finished_already_needs_no_room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/smoke").mkdir(parents=True)
    (tmp_path / "results/smoke/large").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": 1_000_000}))
    assert only(doctor.check_disk(study_with(), {"disk_gb": 0.004, "scratch_gb": 0.0})).state == "ok"
    assert only(doctor.check_disk(study_with(), {"disk_gb": 0.005, "scratch_gb": 0.0})).state == "missing"


CUDA = {"device": "cuda"}


def test_a_study_for_the_cpu_needs_no_card(monkeypatch):
    monkeypatch.setattr(doctor, "cards", lambda: [])
    assert only(doctor.check_gpu(study_with(), 1.0)).state == "ok"


@pytest.mark.parametrize(("programs", "state"), [((), "missing"), (("sbatch",), "note")])
def test_without_a_card_a_cluster_may_have_one(path_with, monkeypatch, programs, state):
    path_with(*programs)
    monkeypatch.setattr(doctor, "cards", lambda: [])
    assert only(doctor.check_gpu(study_with(**CUDA), 1.0)).state == state


@pytest.mark.parametrize(("needed", "state"), [(70.0, "ok"), (90.0, "missing"), (float("nan"), "ok")])
def test_the_smallest_card_must_hold_the_largest_job(monkeypatch, needed, state):
    monkeypatch.setattr(doctor, "cards", lambda: [("H200", 139.0), ("H100", 80.0)])
    monkeypatch.setattr(doctor, "torch_sees_a_card", lambda: True)
    found = only(doctor.check_gpu(study_with(**CUDA), needed))
    assert found.state == state and "80 GiB" in found.what


def test_torch_for_the_cpu_beside_a_card_is_missing_cuda(monkeypatch):
    monkeypatch.setattr(doctor, "cards", lambda: [("H200", 139.0)])
    monkeypatch.setattr(doctor, "torch_sees_a_card", lambda: False)
    found = next(doctor.check_gpu(study_with(**CUDA), 1.0))
    assert found.state == "missing" and "TORCH=cuda" in found.remedy


def test_cards_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'NVIDIA T4, 15360'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor.cards() == [("NVIDIA H200", pytest.approx(140.4, abs=0.1)), ("NVIDIA T4", 15.0)]
    script.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert doctor.cards() == []
    script.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.cards() == []


# ------------------------------------------------------------------------------------------------ the hub


def hub_study(**changes):
    config = yaml.safe_load(SMOKE.read_text())
    config["models"]["rl"] = {"stage": "hub", "repo": "some/model", "revision": "a" * 40, "elicitations": ["think"],
                              **changes}  # fmt: skip
    return load_study(config)


def cached(folder: Path, monkeypatch, *files: str) -> Path:
    """A cache of the hub that has these files of some/model at one commit."""
    snapshot = folder / "models--some--model/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name in files:
        (snapshot / name).write_text('{"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}}')
    (folder / "models--some--model/refs").mkdir()
    (folder / "models--some--model/refs/main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(folder))
    return snapshot


def test_a_study_without_the_hub_asks_nobody():
    assert only(doctor.check_hub(study_with(), SMOKE, answers=lambda: pytest.fail("asked"))).state == "ok"


def test_offline_what_is_not_in_the_cache_is_missing_and_online_it_can_be_fetched(tmp_path, monkeypatch):
    cached(tmp_path, monkeypatch)
    study = hub_study()
    assert states(doctor.check_hub(study, SMOKE, answers=lambda: False)) == ["note", "missing"]
    found = list(doctor.check_hub(study, SMOKE, answers=lambda: True))
    assert states(found) == ["ok", "note"] and f"fetch_inputs --configfile {SMOKE}" in found[1].remedy


def test_a_model_is_there_when_all_its_weights_are(tmp_path, monkeypatch):
    snapshot = cached(tmp_path, monkeypatch, "config.json", "model.safetensors.index.json", "model-1.safetensors")
    assert states(doctor.check_hub(hub_study(), SMOKE, answers=lambda: False)) == ["note", "missing"]
    (snapshot / "model-2.safetensors").touch()
    assert states(doctor.check_hub(hub_study(), SMOKE, answers=lambda: False)) == ["note", "ok"]


@pytest.mark.parametrize(("unpinned", "state"), [("refuse", "missing"), ("allow", "note")])
def test_a_model_without_a_commit_is_missing_it_where_the_study_says_so(tmp_path, monkeypatch, unpinned, state):
    cached(tmp_path, monkeypatch, "model.safetensors")
    study = hub_study(revision="main").model_copy(update={"unpinned": unpinned})
    found = list(doctor.check_hub(study, SMOKE, answers=lambda: False))
    assert states(found) == ["note", state, "ok"] and "resolve_revisions" in found[1].remedy


def test_a_hub_that_hangs_is_given_up_after_seconds(monkeypatch):
    """Nobody answers, however long one waits."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hanging = threading.Event()

    def hang(*_, **__):
        hanging.wait()
        raise OSError("gave up")

    monkeypatch.setattr(doctor.urllib.request, "urlopen", hang)
    assert doctor.hub_answers(seconds=0.05) is False
    hanging.set()


def test_offline_by_the_environment_asks_nobody(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    assert doctor.hub_answers() is False


# ------------------------------------------------------------------------------------------------ all of it


def test_a_file_of_revisions_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(SMOKE.read_text()) | {"revisions": "x.revisions.yaml"}
    config["models"]["rl"] = {"stage": "hub", "repo": "some/model", "revision": None, "elicitations": ["think"]}
    (tmp_path / "x.revisions.yaml").write_text(f"some/model: {'a' * 40}\n")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    assert doctor.read_study(Path("study.yaml")).models["rl"].revision == "a" * 40


@pytest.fixture
def healthy(monkeypatch):
    """Nothing is missing on the machine itself."""
    for name in ("check_python", "check_packages", "check_slurm", "check_graphviz", "check_lock"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))


def test_the_end_is_1_where_something_is_missing_and_0_where_nothing_is(healthy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert doctor.main(["--config", str(SMOKE)]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "check_key", lambda _study: iter([Finding("missing", "the key", "set it")]))
    assert doctor.main(["--config", str(SMOKE)]) == 1
    assert "missing  the key\n         -> set it\n" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["study: [", "study: 1\n", "just words\n", None])
def test_a_study_that_cannot_be_read_is_the_thing_that_is_missing(healthy, tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "x.yaml").write_text(content)
    assert doctor.main(["--config", str(tmp_path / "x.yaml")]) == 1
    assert "missing  a study that can be read" in capsys.readouterr().out


def test_the_doctor_itself_needs_nothing_but_python(tmp_path):
    """So that it can say which packages are missing."""
    import subprocess

    command = [sys.executable, "-S", "-I", str(ROOT / "scripts/reasondiff/doctor.py"), "--config", str(SMOKE)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1 and "missing  package numpy" in run.stdout, run.stderr
    assert "missing  a study that can be read: No module named" in run.stdout
