"""Do the published studies run, from the hub to their pages, with models and counts of a size for tests?

Their own configs, shrunken; a cache of the hub filled as `fetch_inputs` would fill it; no network.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import published_hub
import pytest
import yaml
from fake_anthropic import FakeAnthropic
from running import ROOT, copy_workflow

from reasondiff.config import load_study, size_of
from reasondiff.store import read_table

LAYERS_OF_REAL = 28
SMALL = {  # what a count of this name becomes, wherever it stands
    "tokens": 6000, "threshold_tokens": 1500, "spliced_tokens": 1000, "evaluation_tokens": 1000, "linear_tokens": 2000,
    "probe_tokens": 1500, "calibration_tokens": 3000, "batch_tokens": 512, "buffer_tokens": 4096,
    "stale_after_tokens": 2000, "max_tokens": 160, "context": 160, "documents": 20, "problem_groups": 10,
    "min_firings": 10, "pool_windows": 60, "bootstrap": 100, "permutations": 99, "samples_beside": 19,
    "strongest": 4, "per_quantile": 1, "sampled": 16, "max_new_tokens": 40, "window": 16, "max_features": 40,
    "runners_up": 1, "stored_nodes": 120, "labelled": 5, "pages": 2, "sample": 2, "shown": 2, "chains": 1,
}  # fmt: skip


def published(name: str) -> dict:
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())


def shrunken(config: dict, layers: int) -> dict:
    """A study of the same sections, models, pairs, texts, banks, points and rules with small counts.

    Layer l of 28 becomes the one in the same place among `layers`; latents and k go with the width.
    """

    def walk(value, key=None):
        if isinstance(value, dict):
            return {name: walk(part, name) for name, part in value.items()}
        if key in SMALL and isinstance(value, int):
            return SMALL[key]
        if key == "layers" and isinstance(value, list):
            return sorted({layer * layers // LAYERS_OF_REAL for layer in value})
        return value

    small = walk(copy.deepcopy(config))
    size = {"hidden": 32, "layers": layers, "mlp": 64, "heads": 2, "kv_heads": 1, "vocabulary": published_hub.PADDED}
    for model in small["models"].values():
        model["size"] |= size
    small |= {"device": "cpu", "dtype": "float32"}
    small["accuracy"] |= {"problems": 6, "batch_size": 50}
    small["stream"]["batch_rows"] = 16
    small["gates"]["foreign_share"] = 0.2  # short documents have a larger share of markers
    for bank in small["banks"].values():
        bank |= {"latents": 64, "decoder_norm": 0.4}
        for point in bank["points"].values():
            point |= {"learning_rate": 2.0e-3} | ({"k": point["k"] // 25} if "k" in point else {})
    small["evaluation"]["matched_l0"] = [4]
    if small["transcoders"]:
        _shrink_circuits(small)
    return small


def _shrink_circuits(small: dict) -> None:
    for point in small["transcoders"]["points"].values():
        point |= {"expansion": point["expansion"] // 32, "k": point["k"] // 16, "learning_rate": 7.0e-3}
    small["transcoders"]["selection"] = "float32"
    small["transcoders"]["evaluation"]["problems"] = 4
    small["prompts"] |= {"file": "config/prompts_smoke.yaml", "samples": 2, "batch_size": 50}
    small["graphs"] |= {"batch_size": 40}
    small["graphs"]["interventions"] |= {"features": 4, "quantiles": 2, "matched": 4}
    small["motifs"]["samples"] = 19
    small["comparisons"] |= {"min_prompts": 2, "min_samples": 2}


def run_study(folder: Path, config: dict, home: Path, **environment: str) -> None:
    """Runs a study from its config to its page, on one core, with nothing but the cache of the hub."""
    path = folder / f"config/{config['study']}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    command = [sys.executable, str(ROOT / "tests/warm_snakemake.py"), "--cores", "1", "--configfile", str(path)]
    offline = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", **environment}
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=offline)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]


def prepared(name: str, layers: int, make_folder) -> tuple[Path, dict, Path]:
    """A copy of the workflow with a study's file of revisions, the shrunken study, and the cache of the hub."""
    folder, home = copy_workflow(make_folder(name)), make_folder("hub")
    config = shrunken(published(name), layers)
    (folder / config["revisions"]).write_text(yaml.safe_dump(published_hub.fill(home, layers)))
    return folder, config, home


# ------------------------------------------------------------------------------------------------ the configs


@pytest.mark.parametrize("name", ["deepscaler", "r1_interp"])
def test_no_commit_is_made_up_and_none_is_needed_to_plan(name):
    config = published(name)
    study = load_study(config)
    assert study.unpinned == "refuse" and study.revisions == f"config/{name}.revisions.yaml"
    assert all(model.revision is None for model in study.models.values())
    assert size_of(study, "base").tied and not size_of(study, "distill").tied


def test_the_crosscoder_study_has_its_published_sizes_beside_batch_topk():
    study = load_study(published("deepscaler"))
    assert {pair.models for pair in study.pairs.values() if pair.role == "effect"} == {
        ("base", "rl"), ("base", "distill"), ("distill", "rl"),
    }  # fmt: skip
    for name, k in (("published", []), ("topk", [50, 100, 200])):
        bank = study.banks[name]
        assert bank.layers == (15, 20, 25) and bank.latents == 32 * 1536 and bank.tokens == 150_000_000
        assert [point.k for point in bank.points.values() if point.method == "batch_topk"] == k
        assert all(point.seeds == (0, 1) for point in bank.points.values())
    l1 = study.banks["published"].points["l1"]
    assert (l1.sparsity, l1.learning_rate, l1.reconstruction) == (3.6e-2, 1e-4, "norm")
    assert study.text["answers"].context == 1024 and study.evaluation.tokens == 5_000_000
    assert {text.mode for text in study.text.values()} == {"answers", "both"}


def test_the_circuits_study_has_its_published_sweep_and_the_null_of_its_comparisons():
    study = load_study(published("r1_interp"))
    section = study.transcoders
    assert {(point.expansion, point.k) for point in section.points.values()} == {
        (expansion, k) for expansion in (32, 64, 128) for k in (32, 64, 128)
    }
    assert section.sweep.layers == (2, 14, 26) and section.sweep.tokens == 50_000_000
    assert section.training.tokens == 200_000_000
    assert all(model.layers == tuple(range(28)) for model in section.models.values())
    assert section.models["distill"].start_from == "base" and section.models["base"].seeds == (0, 1)


# ------------------------------------------------------------------------------------------------ they run


@pytest.fixture(scope="module")
def deepscaler(tmp_path_factory) -> Path:
    folder, config, home = prepared("deepscaler", 2, tmp_path_factory.mktemp)
    for pair in ("base-distill", "distill-rl"):  # one text fewer, for the sake of time
        config["pairs"][pair]["texts"] = ["answers"]
    run_study(folder, config, home)
    return folder / "results/deepscaler"


def test_the_crosscoder_study_runs_to_its_page_with_all_pairs(deepscaler):
    page = (deepscaler / "report.html").read_text()
    assert all(pair in page for pair in ("base-rl", "base-distill", "distill-rl", "base-base"))
    assert "block output 1, text traces: distance" in page
    commits = yaml.safe_load((deepscaler.parents[1] / "config/deepscaler.revisions.yaml").read_text())
    for model in published("deepscaler")["models"].values():
        assert f"{model['repo']} at {commits[model['repo']][:12]}" in page
    counts = read_table(deepscaler / "crosscoders/counts.tsv")
    coupled = {("base-rl", "answers"), ("base-rl", "traces"), ("base-distill", "answers"), ("distill-rl", "answers")}
    for pair, text in coupled:
        points = counts.loc[(counts["pair"] == pair) & (counts["text"] == text), "point"]
        assert set(points) == {"l1", "btk50", "btk100", "btk200"}
    assert counts["excess"].isna().all(), "no pair has a control, so there is no excess"


def test_models_come_from_the_commits_of_the_file_of_revisions(deepscaler):
    folders = {}
    for name in ("base", "distill", "rl"):
        model = json.loads((deepscaler / f"models/{name}/model.json").read_text())
        folders[name] = Path(model["folder"])
        assert re.fullmatch(r"[0-9a-f]{40}", model["weights_digest"]) and folders[name].name == model["weights_digest"]
        assert model["vocabulary"] == published_hub.PADDED
    assert len(list(folders["rl"].glob("model-*.safetensors"))) > 1, "the RL model comes in several files"


def test_the_bases_names_for_the_markers_are_foreign_and_between_reasoning_models_none_is(deepscaler):
    found = {}
    for pair in ("base-rl", "distill-rl"):
        content = json.loads((deepscaler / f"crosscoders/{pair}/answers/alignment.json").read_text())
        assert content["tokenizer"] == "distill"
        found[pair] = {row["token"]: row["why"] for row in content["foreign"]}
    assert found["distill-rl"] == {}
    assert found["base-rl"]["<｜User｜>"] == "other string (<|im_start|>)"
    assert set(found["base-rl"]) <= set(published_hub.DEEPSEEK)


def test_answers_leave_the_traces_out_and_the_second_text_has_them(deepscaler):
    from reasondiff.text.rendering import PHASES
    from reasondiff.text.tokens import load_tokens

    phases = {
        text: set(load_tokens(deepscaler / f"text/{text}/distill/tokens.npz").phases) for text in ("answers", "traces")
    }
    think = PHASES.index("think")
    assert think not in phases["answers"] and think in phases["traces"]


def test_a_model_against_itself_has_no_distance_and_few_exclusive_latents(deepscaler):
    divergence = read_table(deepscaler / "crosscoders/base-base/answers/divergence.tsv")
    assert (divergence["l2"] == 0).all()
    counts = read_table(deepscaler / "crosscoders/counts.tsv")
    assert set(counts.loc[counts["pair"] == "base-base", "point"]) == {"btk100"}


def test_both_tokenizers_are_judged_in_nats_per_byte(deepscaler):
    check = read_table(deepscaler / "text/answers/tokenizer_check.tsv")
    assert {(row.model, row.tokenizer) for row in check.itertuples()} == {
        (model, tokenizer) for model in ("base", "distill", "rl") for tokenizer in ("base", "distill")
    }
    assert check["readable"].all() and check["nats_per_byte"].notna().all()


@pytest.fixture(scope="module")
def r1_interp(tmp_path_factory) -> Path:
    folder, config, home = prepared("r1_interp", 3, tmp_path_factory.mktemp)
    with FakeAnthropic() as service:
        config["labels"]["anthropic"] |= {"base_url": service.url, "poll_seconds": 0.1}
        run_study(folder, config, home, ANTHROPIC_API_KEY="sk-ant-made-up-0123456789")
    return folder / "results/r1_interp"


def test_the_circuits_study_sweeps_nine_points_and_trains_all_layers_of_both_models(r1_interp):
    sweep = read_table(r1_interp / "transcoders/distill/mixed/sweep.tsv")
    assert sweep["point"].nunique() == 9 and {"0", "1", "2"} <= set(sweep["layer"].astype(str))
    chosen = json.loads((r1_interp / "transcoders/choice.json").read_text())["point"]
    for model, seed in (("base", 0), ("base", 1), ("distill", 0)):
        table = read_table(r1_interp / f"transcoders/{model}/mixed/{chosen}/seed{seed}/evaluation.tsv")
        assert {"0", "1", "2", "all"} <= set(table["layer"].astype(str))


def test_the_circuits_study_has_graphs_of_both_models_on_the_same_ids(r1_interp):
    summary = read_table(r1_interp / "graphs/summary.tsv")
    made = summary[(summary["target"] == "prompt") & (summary["status"] == "traced")]
    assert set(zip(made["model"], made["seed"], strict=True)) == {("distill", 0), ("base", 0), ("base", 1)}
    assert (made["features"] > 0).all() and (made["coverage"] == 1).all()


def test_the_circuits_study_compares_and_shows_what_it_found(r1_interp):
    for name in ("reasoning_base", "think_answer", "correct_incorrect", "published", "split"):
        assert (r1_interp / f"comparisons/{name}.tsv").exists()
    split = read_table(r1_interp / "comparisons/split.tsv")
    assert "index" in set(split["correspondence"]), "the distilled model's latents correspond to the base's by index"
    page = (r1_interp / "report.html").read_text()
    assert "Attribution graphs" in page and "Transcoders" in page


def test_the_circuits_study_reads_web_text_beside_mathematics_and_pays_for_its_labels(r1_interp):
    documents = pd.read_parquet(r1_interp / "text/mixed/documents.parquet")
    assert documents.loc[documents["source"] == "web", "text"].notna().all()
    assert documents.loc[documents["source"] == "openr1", "think"].notna().all()
    chosen = json.loads((r1_interp / "transcoders/choice.json").read_text())["point"]
    labels = json.loads((r1_interp / f"transcoders/distill/mixed/{chosen}/seed0/labels.json").read_text())
    assert labels["provider"] == "anthropic" and labels["usage"]["dollars"] > 0
