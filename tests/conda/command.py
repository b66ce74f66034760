"""The conda command line, as far as Snakemake's `--sdm conda` uses it: a shim for tests, and no conda.

Environments are real: packages of the channel in $SHIM_CHANNEL, whatever channels a file names, are solved and linked
by py-rattler, and `pip:` requirements are installed by uv, whose cache lets environments share their files.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "24.7.1"  # the oldest that Snakemake accepts


def main(arguments: list[str]) -> None:
    base = str(Path(os.environ["SHIM_BASE"]))
    if arguments[:1] == ["--version"]:
        print(f"conda {VERSION}")
    elif arguments[:1] == ["info"]:
        print(json.dumps({"conda_prefix": base, "platform": "linux-64", "conda_version": VERSION}))
    elif arguments[:1] == ["config"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif arguments[:2] == ["env", "create"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--file", type=Path, required=True)
        parser.add_argument("--prefix", type=Path, required=True)
        parser.add_argument("--quiet", action="store_true")
        parser.add_argument("--no-default-packages", action="store_true")
        options = parser.parse_args(arguments[2:])
        create_environment(options.file, options.prefix)
    elif arguments[:1] != ["clean"]:  # the cache is the test's, and goes with it
        sys.exit(f"this shim of conda knows no `conda {' '.join(arguments)}`")


def create_environment(file: Path, prefix: Path) -> None:
    import yaml

    wanted = yaml.safe_load(file.read_text())["dependencies"]
    asyncio.run(link_packages([entry for entry in wanted if isinstance(entry, str)], prefix))
    install_with_uv([name for entry in wanted if isinstance(entry, dict) for name in entry["pip"]], prefix)


async def link_packages(specifications: list[str], prefix: Path) -> None:
    """`python =3.11` of an environment file is `python 3.11.*` to the solver."""
    import rattler

    parts = [specification.partition("=") for specification in specifications]
    asked = [f"{name.strip()} {version.strip()}.*" if equals else name for name, equals, version in parts]
    records = await rattler.solve([os.environ["SHIM_CHANNEL"]], asked, platforms=["linux-64", "noarch"])
    await rattler.install(records, prefix, show_progress=False)


def install_with_uv(requirements: list[str], prefix: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        python = str(prefix / "bin/python")
        command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", python]
        subprocess.run(
            [*command, "--index-strategy", "unsafe-best-match", *sources_of_pip(), "-r", file.name], check=True
        )


def sources_of_pip() -> list[str]:
    """Where pip is told to look for packages, as options of uv, which does not read pip's settings."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    options = []
    for line in said.stdout.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "find-links"):
            options += [word for place in value.strip("'").split() for word in (f"--{option}", place)]
    # elsewhere torch would come with gigabytes of CUDA
    return options or ["--torch-backend", "cpu"]


if __name__ == "__main__":
    main(sys.argv[1:])
