"""Does the manifest name every artefact of a study and nothing else, and does it see what became of them?"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from running import ROOT

from reasondiff.manifest import (
    FOLDERS,
    artefact_names,
    compare,
    digests,
    main,
    manifest_of,
    read_manifest,
    verify,
    write_manifest,
)
from reasondiff.store import ArtefactError, file_digest, write_json, write_table, write_text

LATENTS = "crosscoders/base-distill/traces/layer1/l1/seed0/latents.tsv"
COST = "graphs/base/seed0/costs/0.tsv"


def write_facts(path: Path, rule: str, started: str = "2030-01-01T00:00:00Z", device: str = "cpu") -> None:
    facts = {"rule": rule, "wildcards": {}, "commit": "0123", "python": "3.11", "versions": {"numpy": "2"}}
    facts |= {"device": device, "threads": 1, "started": started, "seconds": 1.5, "peak_memory_gib": 0.1}
    write_text(f"{path}.run.json", json.dumps(facts))


def write_study(results: Path, deltas=(0.1, 0.9), seconds: float = 0.9, **facts) -> Path:
    """Two tables with cards, a model that a library saved, two pages that one job wrote as a folder, the report."""
    write_table(results / LATENTS, pd.DataFrame({"delta": deltas}), {"seed": 0, "n": len(deltas)})
    write_table(results / COST, pd.DataFrame({"seconds": [seconds]}), {"seed": 0})
    write_json(results / "models/base/model.json", {"layers": 3}, card={"settings": {}})
    write_text(results / "models/base/chat_template.jinja", "{{ messages }}")
    write_text(results / "report/latents/index.html", "<p>")
    write_text(results / "report.html", f"<p>{seconds} s")
    for name, rule in ((LATENTS, "describe"), (COST, "trace"), ("models/base/model.json", "train"),
                       ("report/latents", "write"), ("report.html", "write")):  # fmt: skip
        write_facts(results / name, rule, **facts)
    return results


def manifest_in(results: Path) -> Path:
    write_manifest(results / "manifest.json", manifest_of(results))
    return results / "manifest.json"


@pytest.fixture
def manifest(tmp_path):
    return manifest_in(write_study(tmp_path / "results"))


def test_every_artefact_has_its_size_digest_rule_and_card(manifest):
    found = read_manifest(manifest)["artefacts"]
    assert set(found) == {LATENTS, "models/base/model.json", "models/base/chat_template.jinja",
                          "report/latents/index.html"}  # fmt: skip
    row, path = found[LATENTS], manifest.parent / LATENTS
    assert row["bytes"] == path.stat().st_size and row["sha256"].startswith(file_digest(path))
    assert (row["kind"], row["rule"]) == ("crosscoders", "describe") and len(row["sha256"]) == 64
    assert read_manifest(manifest)["cards"][row["card"]] == {"seed": 0, "n": 2}


def test_a_file_of_a_folder_that_one_job_wrote_has_the_rule_of_the_folder(manifest):
    found = read_manifest(manifest)["artefacts"]
    assert found["report/latents/index.html"]["rule"] == "write"
    assert found["models/base/chat_template.jinja"]["rule"] is None


def test_where_and_when_stand_once_for_each_job(manifest):
    content = read_manifest(manifest)
    job = content["jobs"][content["made_by"][LATENTS]]
    assert (job["rule"], job["device"], job["environment"]) == ("describe", "cpu", 0)
    assert content["environments"] == [{"commit": "0123", "python": "3.11", "versions": {"numpy": "2"}}]
    assert content["made_by"]["report.html"] == content["made_by"]["report/latents/index.html"]


def test_what_is_not_the_studys_own_is_left_out(tmp_path):
    results = write_study(tmp_path)
    before = artefact_names(results)
    for name in ("smoke/report.html", "release/x/README.md", "text/.a.1.tmp.tsv", "graphs/.filling-x/a.json",
                 "transcoders/base/checkpoints/sweep/state.safetensors", "manifest.json"):  # fmt: skip
        write_text(results / name, "{}")
    assert artefact_names(results) == before == sorted(before)


def test_every_folder_that_rules_write_to_is_in_the_manifest():
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = set(re.findall(r"<results>/(\w+)/", rules)) - {"release"}
    assert named == set(FOLDERS)


def test_runs_on_another_day_and_machine_have_equal_digests(tmp_path, manifest):
    other = write_study(tmp_path / "other", seconds=2.0, started="2031-01-01T00:00:00Z", device="cuda:0")
    other = manifest_in(other)
    assert manifest.read_bytes() != other.read_bytes() and digests(manifest) == digests(other)
    assert compare(manifest, other) == []
    assert len({json.dumps(read_manifest(path)["artefacts"]) for path in (manifest, other)}) == 1


def test_the_same_folder_gives_the_same_manifest_on_any_number_of_threads(manifest):
    before = manifest.read_bytes()
    write_manifest(manifest, manifest_of(manifest.parent, threads=4))
    assert manifest.read_bytes() == before


def test_a_difference_is_named_with_what_differs_in_the_card(tmp_path, manifest):
    other = write_study(tmp_path / "other", deltas=(0.1, 0.9, 0.5))
    write_text(other / "models/base/chat_template.jinja", "{{ other }}")
    (other / "report/latents/index.html").unlink()
    assert compare(manifest, manifest_in(other)) == [
        f"{LATENTS} differs, as its card does in n",
        "models/base/chat_template.jinja differs, its card does not",
        "report/latents/index.html is only in the first",
    ]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is truncated"),
        (lambda path: path.write_bytes(path.read_bytes() + b"1"), "is changed"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8")), "is changed: sha256"),
    ],
)
@pytest.mark.parametrize("name", [LATENTS, COST])
def test_a_harmed_artefact_is_named(manifest, harm, told, name):
    assert verify(manifest) == []
    path = manifest.parent / name
    harm(path)
    (said,) = verify(manifest)
    assert said.startswith(f"{path} {told}")


def test_a_results_folder_that_was_moved_is_still_whole(tmp_path, manifest):
    moved = shutil.copytree(manifest.parent, tmp_path / "moved")
    assert verify(moved / "manifest.json") == []


def test_the_commands_say_what_differs_and_fail(manifest, capsys):
    assert main(["verify", str(manifest)]) == 0 and "6 of 6 artefacts are as they were" in capsys.readouterr().out
    assert main(["compare", str(manifest), str(manifest)]) == 0 and "4 of 4" in capsys.readouterr().out
    (manifest.parent / LATENTS).unlink()
    assert main(["verify", str(manifest)]) == 1
    assert "latents.tsv is missing" in capsys.readouterr().out


def test_another_json_file_is_no_manifest(manifest):
    with pytest.raises(ArtefactError, match="is no manifest"):
        verify(manifest.parent / "models/base/model.json")
