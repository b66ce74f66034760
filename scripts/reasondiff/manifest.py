"""What is a study made of, byte for byte, and is all of it still there?

`results/manifest.json` names every artefact with its size, digest and card. What depends on the run and not on the
study (devices, versions, times, and the artefacts that say them) stands in parts of its own, so that two runs compare:

    python -m reasondiff.manifest verify results/manifest.json
    python -m reasondiff.manifest compare results/manifest.json elsewhere/manifest.json
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reasondiff.store import ArtefactError, digest, read_card, read_json, sha256, write_text

NAME = "manifest.json"
FOLDERS = ("text", "models", "crosscoders", "transcoders", "prompts", "graphs", "motifs", "comparisons", "report")
"""Folders of a study's results. What else lies among them is not its own: other studies, a release."""
CHECKPOINTS = "checkpoints"
"""Folders in which a training keeps what it would go on from."""
RUN_FACTS = ".run.json"
TIMED = ("report.html", "graphs/*/*/costs/*.tsv")
"""Artefacts that say how long the run took."""
WITH_CARD = (".json", ".npz", ".parquet", ".safetensors", ".tsv")
ENVIRONMENT = ("commit", "python", "versions")


# ------------------------------------------------------------------------------------------------ what is there


def artefact_names(results: str | Path) -> list[str]:
    """Every file that belongs to the study, as a path below `results`, in order. Run facts, files being written,
    checkpoints of trainings and the manifest itself are left out."""
    results = Path(results)
    top = [path for path in results.iterdir() if path.is_file() or path.name in FOLDERS]
    files = [file for path in top for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return sorted(file.relative_to(results).as_posix() for file in files if _is_artefact(file.relative_to(results)))


def _is_artefact(name: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in name.parts)
    return not is_hidden and CHECKPOINTS not in name.parts and not name.name.endswith(RUN_FACTS) and str(name) != NAME


def manifest_of(results: str | Path, threads: int = 1) -> dict[str, Any]:
    """`artefacts` {path: bytes, sha256, kind, rule, card} and `cards` {digest: card}; and of this run `timed` (as
    `artefacts`), `made_by` {path: number of its job}, `jobs`, and `environments`, which jobs number.

    `kind` is the folder of `FOLDERS`, `rule` wrote the artefact, and `card` is the digest of its card. Files that a
    library put beside a model have no rule (None), and those that cannot have a card none.

    Raises:
        ArtefactError: a file is broken.
    """
    results, names = Path(results), artefact_names(results)
    with ThreadPoolExecutor(threads) as pool:  # hashing lets go of the interpreter
        hashed = dict(zip(names, pool.map(lambda name: sha256(results / name), names), strict=True))
    facts = {name: found for name in names if (found := run_facts_of(results, name)) is not None}
    cards: dict[str, dict[str, Any]] = {}
    rows = {}
    for name in names:
        card = read_card(results / name) if Path(name).suffix in WITH_CARD else {}
        card_digest = digest(json.dumps(card, sort_keys=True)) if card else None
        if card_digest and not is_timed(name):
            cards[card_digest] = card
        rows[name] = {
            "bytes": (results / name).stat().st_size,
            "sha256": hashed[name],
            "kind": Path(name).parts[0].split(".")[0],
            "rule": facts[name]["rule"] if name in facts else None,
            "card": card_digest,
        }
    return {
        "artefacts": {name: row for name, row in rows.items() if not is_timed(name)},
        "cards": cards,
        "timed": {name: row for name, row in rows.items() if is_timed(name)},
        **_jobs(facts),
    }


def is_timed(name: str) -> bool:
    """Whether an artefact says how long the run took."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in TIMED)


def run_facts_of(results: Path, name: str) -> dict[str, Any] | None:
    """What `<file>.run.json` says of an artefact, or that of a folder above which one job wrote as a whole."""
    for path in (Path(name), *Path(name).parents[:-1]):
        if (found := results / f"{path}{RUN_FACTS}").is_file():
            return read_json(found)
    return None


def _jobs(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Run facts of many artefacts, with each job and each environment once."""
    environments: dict[str, int] = {}
    jobs: dict[str, int] = {}
    made_by = {}
    for name, one in facts.items():
        environment = json.dumps({key: one[key] for key in ENVIRONMENT}, sort_keys=True)
        number = environments.setdefault(environment, len(environments))
        job = {**{key: value for key, value in one.items() if key not in ENVIRONMENT}, "environment": number}
        made_by[name] = jobs.setdefault(json.dumps(job), len(jobs))
    return {"made_by": made_by, "jobs": [*map(json.loads, jobs)], "environments": [*map(json.loads, environments)]}


def write_manifest(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a manifest, with a line for each artefact, card and job: there are many."""
    write_text(path, _lines(content, 2) + "\n")


def _lines(value: Any, depth: int) -> str:
    """JSON in which the entries of the outer `depth` levels have a line each."""
    if depth == 0:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(one, depth - 1)}" for key, one in value.items()) + "\n}"
    return "[\n" + ",\n".join(_lines(one, depth - 1) for one in value) + "\n]"


# ------------------------------------------------------------------------------------------------ reading


def read_manifest(path: str | Path) -> dict[str, Any]:
    """A manifest as `manifest_of` gave it; that of a released folder has artefacts alone.

    Raises:
        ArtefactError: the file is missing, broken or something else.
    """
    content = read_json(path)
    if "artefacts" not in content:
        raise ArtefactError(f"{path} is no manifest of a study: it lacks artefacts")
    return {"cards": {}, "timed": {}, **content}


def digests(path: str | Path) -> dict[str, str]:
    """{artefact: SHA-256} of a manifest, without the artefacts that say how long the run took: two runs of one study
    on the same kind of machine agree in these."""
    return {name: row["sha256"] for name, row in read_manifest(path)["artefacts"].items()}


def verify(path: str | Path) -> list[str]:
    """A sentence for each file of a manifest that is missing, truncated or changed; none where all is as it was."""
    content, results = read_manifest(path), Path(path).parent
    rows = {**content["artefacts"], **content["timed"]}
    return [fault for name, row in rows.items() if (fault := _fault(results / name, row))]


def _fault(path: Path, row: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    found = path.stat().st_size
    if found != row["bytes"]:
        what = "truncated" if found < row["bytes"] else "changed"
        return f"{path} is {what}: {row['bytes']:,} bytes expected, {found:,} found"
    came = sha256(path)
    return None if came == row["sha256"] else f"{path} is changed: sha256 {row['sha256']} expected, {came} found"


def compare(first: str | Path, second: str | Path) -> list[str]:
    """A sentence for each artefact that only one of two manifests has, or that differs, with the keys of its card that
    differ; artefacts that say how long the run took are not compared."""
    one, other = read_manifest(first), read_manifest(second)
    names = sorted({*one["artefacts"], *other["artefacts"]})
    return [difference for name in names if (difference := _difference(name, one, other))]


def _difference(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    rows = [manifest["artefacts"].get(name) for manifest in (one, other)]
    if None in rows:
        return f"{name} is only in the {'second' if rows[0] is None else 'first'}"
    if rows[0]["sha256"] == rows[1]["sha256"]:
        return None
    cards = [manifest["cards"].get(row["card"], {}) for manifest, row in zip((one, other), rows, strict=True)]
    keys = sorted(key for key in {*cards[0], *cards[1]} if cards[0].get(key) != cards[1].get(key))
    return f"{name} differs, " + (f"as its card does in {', '.join(keys)}" if keys else "its card does not")


# ------------------------------------------------------------------------------------------------ from a terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where all is well, 1 where something is missing or differs, which is printed."""
    parser = argparse.ArgumentParser(prog="python -m reasondiff.manifest", description="Checks manifests of studies.")
    commands = parser.add_subparsers(dest="command", required=True)
    checked = commands.add_parser("verify", help="read every file again and name those that are not what they were")
    checked.add_argument("manifest")
    compared = commands.add_parser("compare", help="name the artefacts in which two runs differ")
    compared.add_argument("first")
    compared.add_argument("second")
    given = parser.parse_args(arguments)
    if given.command == "verify":
        found, counted = verify(given.manifest), read_manifest(given.manifest)
        size = len(counted["artefacts"]) + len(counted["timed"])
    else:
        found, size = compare(given.first, given.second), len({**digests(given.first), **digests(given.second)})
    for sentence in found:
        print(sentence)
    print(f"{size - len(found)} of {size} artefacts are " + ("as they were" if given.command == "verify" else "equal"))
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ArtefactError as error:
        sys.exit(str(error))
