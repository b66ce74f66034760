"""How long does Snakemake take to plan a study, by study and for each job of a large one?

python benchmarks/scheduling.py [--jobs 2000]

A dry run: config read and checked, every job and its reason found, nothing run. The large study is the one of
config/deepscaler.yaml with crosscoders in as many layers and seeds as make `--jobs` jobs. Beside it stands a plain
workflow of as many jobs with one input, one output and one parameter each: what Snakemake itself takes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from measure import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
PLAIN = """rule all:
    input: expand("made/{{number}}.txt", number=range({jobs}))
rule make:
    input: "given.txt"
    output: "made/{{number}}.txt"
    params: of=lambda wildcards: int(wildcards.number)
    shell: "cp {{input}} {{output}}"
"""


@dataclass(frozen=True)
class Planned:
    """A dry run of `jobs` jobs."""

    name: str
    jobs: int
    seconds: float

    def row(self) -> dict:
        each = 1000 * self.seconds / self.jobs
        return {"": self.name, "jobs": self.jobs, "s": f"{self.seconds:.1f}", "ms per job": f"{each:.1f}"}


def plan(name: str, folder: Path, *arguments: str) -> Planned:
    """A dry run in `folder`, timed from the command's start to its end."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1", *arguments]
    started = time.perf_counter()
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds = time.perf_counter() - started
    if run.returncode:
        raise SystemExit(f"{name}: the dry run failed:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return Planned(name, int(re.findall(r"^total +(\d+)$", run.stdout + run.stderr, re.MULTILINE)[-1]), seconds)


def enlarged(seeds: int) -> dict:
    """The study of config/deepscaler.yaml in all layers of its models, with more seeds."""
    study = yaml.safe_load((ROOT / "config/deepscaler.yaml").read_text())
    layers = next(model["size"]["layers"] for model in study["models"].values())
    for bank in study["banks"].values():
        bank["layers"] = list(range(layers))
        for point in bank["points"].values():
            point["seeds"] = list(range(seeds))
    return study


def large_study(folder: Path, wanted: int) -> Planned:
    """The smallest enlarged study of at least `wanted` jobs."""
    for seeds in range(1, 20):
        (folder / "config/large.yaml").write_text(yaml.safe_dump(enlarged(seeds), sort_keys=False))
        planned = plan("config/deepscaler.yaml enlarged", folder, "--configfile", "config/large.yaml")
        if planned.jobs >= wanted:
            break
    return planned


def main() -> None:
    from running import copy_workflow

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as place:
        folder, plain = Path(place, "ours"), Path(place, "plain")
        folder.mkdir()
        plain.mkdir()
        copy_workflow(folder)
        configs = sorted(
            path.name for path in (ROOT / "config").glob("*.yaml") if "\nstudy:" in f"\n{path.read_text()}"
        )
        rows = [plan(f"config/{name}", folder, "--configfile", f"config/{name}") for name in configs]
        rows.append(large_study(folder, jobs))
        (plain / "Snakefile").write_text(PLAIN.format(jobs=rows[-1].jobs - 1))
        (plain / "given.txt").touch()
        rows.append(plan("a plain workflow of as many jobs", plain))
    print(f"**Dry runs** ({machine()})\n\n{pd.DataFrame([row.row() for row in rows]).to_markdown(index=False)}\n")


if __name__ == "__main__":
    main()
