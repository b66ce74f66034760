"""A study of one pair, one crosscoder, one transcoder and one graph, as far as a release needs them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from reasondiff.release.contents import ReleasedParts, repositories
from reasondiff.store import write_json, write_table, write_tensors, write_text

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAIR = "crosscoders/base-distill/traces/layer15/btk50/seed0"
SET = "transcoders/distill/traces/x32k64/seed0"
GRAPH = "graphs/distill/seed0/sum/answer"
INFO = {"architecture": "Qwen2ForCausalLM", "layers": 28, "hidden": 1536, "weights_digest": "ab12", "revision": COMMIT}


@pytest.fixture(scope="session")
def study() -> ReleasedParts:
    """Two models and the text of the hub, with a licence for all but one of the models."""
    config = yaml.safe_load((ROOT / "config/deepscaler.yaml").read_text())
    parts = {name: config[name] for name in ReleasedParts.model_fields}
    parts["release"] |= {"licence": "mit", "licences": {"distill": "mit", "traces": "apache-2.0"}}
    return ReleasedParts.model_validate(parts)


@pytest.fixture(scope="session")
def tables() -> dict[str, pd.DataFrame]:
    where = {"pair": "base-distill", "text": "traces", "layer": 15, "point": "btk50", "seed": 0}
    quality = {**where, "fve": 0.81234, "fve_low": 0.80111, "fve_high": 0.82, "n_problems": 345, "l0": 49.96}
    quality |= {"dead_share": 0.0321, "n_latents": 49152}
    gate = {"of": "base-distill/traces/layer15/btk50/seed0", "rule": "at most", "threshold": 0.05}
    gates = [{**gate, "gate": "dense_share", "value": 0.25, "verdict": "fail"}]
    gates += [{**gate, "gate": "fve", "value": 0.81, "verdict": "pass"}]
    gates += [{**gate, "gate": "kl", "value": None, "verdict": "not testable"}]
    count = {**where, "group": "reasoning_only", "count": 12, "live": 400, "share": 0.03, "share_low": 0.017}
    count |= {"share_high": 0.052, "control_count": 2, "control_live": 390}
    measured = {"model": "distill", "text": "traces", "point": "x32k64", "seed": 0, "layer": "3", "phase": "all"}
    measured |= {"fvu": 0.25, "fvu_low": 0.2, "fvu_high": 0.3, "n_problems": 77, "n_latents": 49152, "l0": 64.0}
    measured |= {"ce_increase_transcoder": 0.02, "ce_increase_transcoder_low": 0.01, "dead_share": 0.1}
    measured |= {"ce_increase_transcoder_high": 0.03, "recovered_mean": 0.913, "n_spliced_problems": 31}
    scores = {"kind": "crosscoder", "of": "base-distill", "measure": "interpretability", "task": "detection"}
    scores |= {"negatives": "all", "control": "own", "split": "all", "group": "all", "value": 0.8, "low": 0.75}
    scores |= {"high": 0.85, "n_latents": 120, "n_windows": 900}
    graph = {"model": "distill", "seed": 0, "prompt_id": "sum", "target": "answer", "nodes": 90, "explains": True}
    graph |= {"feature_share": 0.7}
    both = [{**quality, "model": "base"}, {**quality, "model": "distill", "fve": 0.9}]
    return {
        "quality": pd.DataFrame(both),
        "gates": pd.DataFrame(gates),
        "counts": pd.DataFrame([count, {**count, "group": "shared", "count": 300}]),
        "transcoders": pd.DataFrame([measured, {**measured, "phase": "headline", "fvu": 0.5}]),
        "label_summary": pd.DataFrame([scores]),
        "summary": pd.DataFrame([graph, {**graph, "target": "think", "explains": False}]),
    }


@pytest.fixture(scope="session")
def infos() -> dict[str, dict]:
    return {name: INFO for name in ("base", "distill", "rl")}


@pytest.fixture
def results(tmp_path) -> Path:
    """The artefacts on disk; weights of two numbers."""
    folder = tmp_path / "results"
    card = {"tokens_seen": 150_000_000, "point": {"method": "batch_topk", "k": 50}}
    write_tensors(folder / PAIR / "crosscoder.safetensors", {"weight": torch.zeros(2)}, card)
    write_json(folder / PAIR / "config.json", {"dict_size": 49152})
    write_table(folder / PAIR / "latents.tsv", pd.DataFrame({"latent": [0, 1], "delta": [0.1, 0.5]}), {"seed": 0})
    labels = {"provider": "anthropic", "model": "a model", "latents": [{"status": "labelled"}, {"status": "failed"}]}
    write_json(folder / PAIR / "labels.json", labels, card={"seed": 0})
    write_table(folder / PAIR / "examples.parquet", pd.DataFrame({"tokens": ["a", "b"]}), {"seed": 0})
    write_tensors(folder / SET / "layers.3.mlp/sae.safetensors", {"weight": torch.zeros(2)}, card)
    write_text(folder / GRAPH / "graph.json", "{}")
    write_table(folder / "graphs/summary.tsv", pd.DataFrame({"model": ["distill"]}), {"seed": 0})
    return folder


@pytest.fixture
def given(results) -> dict[str, list[str]]:
    """What the rule is given of each content."""
    named = {
        "crosscoders": [f"{PAIR}/crosscoder.safetensors", f"{PAIR}/config.json"],
        "transcoders": [f"{SET}/layers.3.mlp/sae.safetensors"],
        "latents": [f"{PAIR}/{name}" for name in ("latents.tsv", "labels.json", "examples.parquet")],
        "graphs": [f"{GRAPH}/graph.json", "graphs/summary.tsv"],
    }
    return {content: [str(results / name) for name in names] for content, names in named.items()}


@pytest.fixture
def packed(study, results, given) -> dict[str, object]:
    """{content: its one repository}."""
    return {one.content: one for one in repositories(study.study, results, given)}
