"""What do all benchmarks say? Runs them one after the other, prints their tables and writes benchmarks/README.md.

python benchmarks/run.py                    # all, half an hour on two idle cores; `make bench` is the same
python benchmarks/run.py motifs labels      # only these: the others keep the figures they have
python benchmarks/run.py --render           # none: README.md anew from its template and the figures there are

What a benchmark printed lies in benchmarks/figures/<name>.md with the machine and the month it was measured in. One
that cannot run here (no graphics card, no published graph) says why and keeps its figures.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures"
RUNS: dict[str, list[list[str]]] = {  # name of a benchmark: the arguments of each of its runs
    "streaming": [[]],
    "training": [[]],
    "transcoders": [[], ["--batch", "2048"]],
    "examples": [[]],
    "labels": [[]],
    "attribution": [[]],
    "motifs": [[]],
    "scheduling": [[]],
    "gpu": [[]],
}
NOTHING = "*Not measured yet.*"


def run(name: str, load: float) -> bool:
    """Runs one benchmark and keeps what it printed; False where it cannot run, with its reason on the screen."""
    printed = []
    for arguments in RUNS[name]:
        print(f"--- {name} {' '.join(arguments)}", flush=True)
        done = subprocess.run([sys.executable, HERE / f"{name}.py", *arguments], capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
            print(f"not measured: {reason[0]}", flush=True)
            return False
        print(done.stdout, flush=True)
        printed.append(done.stdout.strip())
    busy = f", on a machine with other work (load {load:.1f} at the start)" if load >= 0.5 else ""
    said = f"Measured in {datetime.date.today():%Y-%m}{busy}."
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / f"{name}.md").write_text("\n\n".join([said, *printed]) + "\n")
    return True


def figures(name: str) -> str:
    """What a benchmark printed when it was last run."""
    path = FIGURES / f"{name}.md"
    return path.read_text().strip() if path.exists() else NOTHING


def page() -> str:
    """README.md, from its template and the figures."""
    pages = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    return pages.get_template("README.md.j2").render(figures=figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(RUNS))
    parser.add_argument("--render", action="store_true", help="run none")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - set(RUNS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    load = os.getloadavg()[0]  # of the last minute
    names = [] if wanted.render else wanted.names or RUNS
    left = [name for name in names if not run(name, load)]
    (HERE / "README.md").write_text(page())
    print(f"{HERE / 'README.md'} is written" + (f"; not measured: {', '.join(left)}" if left else ""))


if __name__ == "__main__":
    main()
