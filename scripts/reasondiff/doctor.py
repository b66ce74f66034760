"""What is missing on this machine for a study, and what mends it?

`python -m reasondiff.doctor --config config/X.yaml` prints a line for each thing: ok, missing (the study cannot run
without it; the command then ends with 1) or note. It changes nothing, and asks the network for seconds at most.
Nothing but the standard library is imported before it is known to be there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from reasondiff.config import Study
    from reasondiff.revisions import HubName

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (3, 11)
HUB_SECONDS = 4.0
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line: its state, what was looked at, and what to do about it (empty where nothing is)."""

    state: Literal["ok", "missing", "note"]
    what: str
    remedy: str = ""


Findings = Iterator[Finding]


# ------------------------------------------------------------------------------------------------ the machine


def check_python() -> Findings:
    running = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, PYTHON))
    if sys.version_info[:2] == PYTHON:
        yield Finding("ok", f"Python {running}")
    else:
        yield Finding("missing", f"Python {wanted}; this is {running}", f"install it, and `make PYTHON=python{wanted}`")


def check_packages() -> Findings:
    """What the workflow needs, in the versions of the lock."""
    locked = locked_versions(ROOT / "constraints.txt")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    right = 0
    for name in (re.match(r"[\w.-]+", line)[0] for line in needed):
        installed, wanted = installed_version(name), locked.get(_canonical(name))
        if installed is None:
            yield Finding("missing", f"package {name} {wanted or ''}".strip(), "pip install -c constraints.txt -e .")
        elif wanted is not None and installed.split("+")[0] != wanted:
            remedy = "pip install -c constraints.txt -e ."
            yield Finding("note", f"package {name} {installed}; tested with {wanted}", remedy)
        else:
            right += 1
    yield Finding("ok", f"{right} packages in the versions of constraints.txt")


def locked_versions(constraints: Path) -> dict[str, str]:
    """{package: version} of a file of constraints."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([\w.-]+)==([^\s;+]+)", line) for line in lines)
    return {_canonical(match[1]): match[2] for match in found if match}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_slurm() -> Findings:
    if shutil.which("sbatch") is None:
        yield Finding("note", "no SLURM here: jobs run on this machine", "docs/cluster.md, where there is a cluster")
    elif installed_version("snakemake-executor-plugin-slurm") is None:
        yield Finding("missing", "SLURM is here, Snakemake's plugin for it is not", "pip install -e '.[slurm]'")
    else:
        yield Finding("ok", "SLURM and Snakemake's plugin for it")


def check_graphviz() -> Findings:
    if shutil.which("dot"):
        yield Finding("ok", "graphviz (dot)")
    else:
        yield Finding("note", "no graphviz (dot): only for pictures of the workflow", "apt install graphviz")


def check_lock() -> Findings:
    locks = Path(".snakemake/locks")
    if locks.is_dir() and any(locks.iterdir()):
        remedy = "wait for it; where none runs any more: snakemake --unlock, then --rerun-incomplete"
        yield Finding("missing", "the working folder is locked by a Snakemake that runs, or was killed", remedy)
    else:
        yield Finding("ok", "no other Snakemake has locked the working folder")


# ------------------------------------------------------------------------------------------------ the study


def check_results(study: Study) -> Findings:
    from reasondiff.store import existing_parent

    folder = existing_parent(study.results_dir)
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield Finding("ok", f"{study.results_dir} can be written")
    except OSError as error:
        remedy = "its permissions, or another `results_dir`"
        yield Finding("missing", f"{folder} cannot be written ({error.strerror})", remedy)


def check_key(study: Study) -> Findings:
    if study.labels.provider != "anthropic":
        yield Finding("ok", "labels are made offline: no key is needed")
    elif os.environ.get("ANTHROPIC_API_KEY", "").strip():
        yield Finding("ok", "ANTHROPIC_API_KEY is set")
    else:
        remedy = "set it in the environment of Snakemake, or `labels.provider: offline`"
        yield Finding("missing", "ANTHROPIC_API_KEY, which labels by Claude need", remedy)


def check_files(study: Study) -> Findings:
    """Models and texts that the study names on this machine."""
    for name, model in study.models.items():
        if model.stage == "local" and not (Path(model.folder) / "config.json").is_file():
            yield Finding("missing", f"models.{name}: {model.folder} has no config.json", "the folder of a model")
    for text_name, text in study.text.items():
        for name, source in text.sources.items():
            for file in getattr(source, "files", ()):
                if not Path(file).is_file():
                    yield Finding("missing", f"text.{text_name}.sources.{name}: no file {file}", "the path")


def total_cost(study: Study) -> dict[str, Any]:
    """What the whole study is reckoned to take: the last row of its cost table.

    Raises:
        ImportError: packages that the reckoning needs are missing.
    """
    from reasondiff.costs.sizes import known_sizes
    from reasondiff.costs.table import reckon
    from reasondiff.text.prompts import read_prompts

    prompts = len(read_prompts(study.prompts.file)) if study.prompts else 0
    return reckon(study, known_sizes(study), prompts)[-1]


def check_disk(study: Study, cost: dict[str, Any]) -> Findings:
    from reasondiff.store import existing_parent

    folder = existing_parent(study.results_dir)
    needed = cost["disk_gb"] + cost["scratch_gb"]
    there = sum(file.stat().st_size for file in Path(study.results_dir).rglob("*") if file.is_file()) / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    told = f"{free:.1f} GB free, the study takes about {needed:.1f} GB, of which {there:.1f} GB may be there"
    if needed != needed:  # NaN
        yield Finding("note", f"{free:.1f} GB free; what the study takes is not known", "declare the models' `size`")
    elif free + there >= needed:
        yield Finding("ok", told)
    else:
        yield Finding("missing", told, "free some space, or set `results_dir` to another disk")


def cards() -> list[tuple[str, float]]:
    """(name, memory in GiB) of each card that nvidia-smi lists."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = said.stdout.strip().splitlines() if said.returncode == 0 else []
    return [(name.strip(), float(mebibytes) / 1024) for name, mebibytes in (line.rsplit(",", 1) for line in lines)]


def torch_sees_a_card() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def check_gpu(study: Study, needed_gib: float) -> Findings:
    if study.device == "cpu":
        yield Finding("ok", "the study runs on the CPU: no card is needed")
        return
    found = cards()
    if not found:
        if shutil.which("sbatch"):
            yield Finding("note", "no card here: jobs get theirs from SLURM", "docs/cluster.md")
        else:
            yield Finding("missing", "a CUDA card: nvidia-smi lists none", "another machine, or `device: cpu`")
        return
    if not torch_sees_a_card():
        yield Finding("missing", "torch does not see the card", "delete .venv, then: make TORCH=cuda .venv/.report")
    smallest = min(memory for _, memory in found)
    told = f"{len(found)} card(s), {', '.join(sorted({name for name, _ in found}))}, {smallest:.0f} GiB"
    if needed_gib > smallest:
        remedy = "a larger card, `memory_gib` (trains in groups), smaller batches or fewer latents"
        yield Finding("missing", f"{told}; the largest job takes about {needed_gib:.0f} GiB", remedy)
    else:
        yield Finding("ok", told)


# ------------------------------------------------------------------------------------------------ the hub


def hub_answers(seconds: float = HUB_SECONDS) -> bool:
    """Whether the hub can be reached within some seconds (a thread, since looking up its name may hang for longer)."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except OSError:
            pass

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(seconds)


def check_hub(study: Study, config: Path, answers: Callable[[], bool] = hub_answers) -> Findings:
    from reasondiff.revisions import hub_names

    names = hub_names(study)
    if not names:
        yield Finding("ok", "the study takes nothing from the hub")
        return
    is_online = answers()
    yield Finding(*(("ok", "the hub answers") if is_online else ("note", "the hub cannot be reached from here")))
    for name in names:
        yield from _pinned(name, study, config)
        yield _cached(name, is_online, config)


def _pinned(name: HubName, study: Study, config: Path) -> Findings:
    if not name.is_pinned:
        state = "missing" if study.unpinned == "refuse" else "note"
        remedy = f"snakemake --cores 1 resolve_revisions --configfile {config}"
        yield Finding(state, f"{name}: no commit", remedy)


def _cached(name: HubName, is_online: bool, config: Path) -> Finding:
    from reasondiff.hub import cached_folder

    folder = cached_folder(name.repo, name.revision, name.kind)
    if folder is not None and _is_whole(folder, name):
        return Finding("ok", f"{name.key}: {name.repo} is on this machine")
    remedy = f"snakemake --cores 1 fetch_inputs --configfile {config}"
    if is_online:
        return Finding("note", f"{name.key}: {name.repo} is still to be fetched", remedy)
    remedy += " where there is a network; HF_HOME names the cache"
    return Finding("missing", f"{name.key}: {name.repo} is not on this machine", remedy)


def _is_whole(folder: Path, name: HubName) -> bool:
    """Whether what the study reads is there; of a data set, whether there is anything but its card."""
    from reasondiff.models.load import missing_shards

    if name.kind == "dataset":
        return any(file.is_file() and file.name != "README.md" for file in folder.rglob("*"))
    return any(folder.rglob("*.safetensors")) and not missing_shards(folder)


# ------------------------------------------------------------------------------------------------ all of it


def examine(config: Path) -> list[Finding]:
    """Everything, the machine first."""
    found = [
        one for check in (check_python, check_packages, check_slurm, check_graphviz, check_lock) for one in check()
    ]
    try:
        study = read_study(config)
    except (ImportError, OSError, ValueError) as error:
        return [*found, Finding("missing", f"a study that can be read: {error}", f"mend {config}")]
    for check in (check_results, check_key, check_files):
        found += check(study)
    found += _with_costs(study)
    return [*found, *check_hub(study, config)]


def _with_costs(study: Study) -> Findings:
    try:
        cost = total_cost(study)
    except (ImportError, ValueError) as error:
        yield Finding("note", f"what the study takes is not known: {error}")
        cost = {"disk_gb": float("nan"), "scratch_gb": float("nan"), "gpu_gib": float("nan")}
    yield from check_disk(study, cost)
    yield from check_gpu(study, cost["gpu_gib"])


def read_study(config: Path) -> Study:
    """The study of a file, with the commits of its file of revisions.

    Raises:
        ConfigError: it cannot be used.
        OSError: there is no such file.
    """
    import yaml

    from reasondiff.config import ConfigError, load_study
    from reasondiff.revisions import pinned, read_revisions

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{config} is no YAML: {error}") from error
    study = load_study(content if isinstance(content, dict) else {})
    return study if study.revisions is None else pinned(study, read_revisions(study.revisions))


def as_text(findings: Sequence[Finding]) -> str:
    """A table of three columns: state, what, remedy."""
    lines = []
    for one in findings:
        remedy = f"\n{'':9}-> {one.remedy}" if one.remedy else ""
        lines.append(f"{one.state:8} {one.what}{remedy}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reasondiff.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="file of the study")
    found = examine(parser.parse_args(arguments).config)
    print(as_text(found))
    missing = sum(one.state == "missing" for one in found)
    print(f"\n{missing} thing(s) missing" if missing else "\nnothing is missing")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
