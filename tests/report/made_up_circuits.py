"""Tables on graphs, interventions, motifs and comparisons as the stages write them, with figures set by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from reasondiff.graphs import agreement as agreements
from reasondiff.graphs import split, summary
from reasondiff.models import answering
from reasondiff.motifs import comparison, profiles

SCALARS = {
    "replacement": 0.8, "completeness": 0.9, "feature_share": 0.7, "share_layer0": 0.1, "share_target_position": 0.4,
    "share_skip": 0.05, "share_rest": 0.2, "tokens_via_features": 0.6, "coverage": 1.0, "included": 0.95,
    "replaced_kl": 0.02, "depth": 0.5, "crossing_share": 0.3, "probability": 0.9, "entropy": 0.4,
}  # fmt: skip


def graph(prompt: str, target: str = "answer", model: str = "distill", seed: int = 0, **changes: Any) -> dict[str, Any]:
    row = {"model": model, "seed": seed, "prompt_id": prompt, "category": "arithmetic", "target": target}
    row |= {"phase": target, "status": "traced", "reason": None, "target_token": "4", "tokens": 60, "features": 300}
    row |= {"features_pruned": 60, "nodes": 90, "edges": 700, "replaced_top1": True, "explains": True, "refused": ""}
    return {**row, **SCALARS, **changes}


def not_made(prompt: str, status: str, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys([*SCALARS, "features", "nodes", "edges", "features_pruned"], np.nan)
    return graph(prompt, status=status, reason=reason, replaced_top1=None, explains=False, refused=reason, **nothing)


def agreement(prediction: str, chosen: str = "stratified", freezing: str = "free", **changes: Any) -> dict[str, Any]:
    row = {"model": "distill", "seed": 0, "phase": "all", "chosen": chosen, "prediction": prediction}
    row |= {"freezing": freezing, "factor": 0, "latents": 240, "prompts": 20, "spearman": 0.8}
    row |= {"slope": 0.9, "slope_low": 0.8, "slope_high": 1.0, "r2": 0.75, "r2_low": 0.7, "r2_high": 0.8}
    return {**row, "sign_agreement": 0.93, "sign_low": 0.9, "sign_high": 0.96, "reason": "", **changes}


def profile(motif: str, log_ratio: float, source: str = "distill/seed0", **changes: Any) -> dict[str, Any]:
    row = {"source": source, "model": "distill", "seed": 0, "phase": "answer", "node_share": 0.8, "edge_share": 0.98}
    row |= {"null": "typed", "family": "typed", "motif": motif, "prompts": 20, "graphs": 20, "log_ratio": log_ratio}
    row |= {"low": log_ratio - 0.1, "high": log_ratio + 0.1, "delta": 0.2, "p": 0.001, "p_adjusted": 0.01}
    return {**row, "sign_stable": True, "rank": 5, "mobility": 0.4, "states": 60, **changes}


def compared(comparison: str, measure: str, difference: float, verdict: str, **changes: Any) -> dict[str, Any]:
    row = {"comparison": comparison, "measure": measure, "measure_family": "shape", "group_a": "distill"}
    row |= {"group_b": "base", "n": 20, "value_a": 0.5 + difference, "value_b": 0.5, "difference": difference}
    row |= {"low": difference - 0.1, "high": difference + 0.1, "unit": "prompt", "p": 0.002, "p_adjusted": 0.012}
    row |= {"null": "seed against seed", "null_difference": 0.03, "null_low": -0.05, "null_high": 0.08, "null_n": 20}
    return {**row, "verdict": verdict, "reason": None, **changes}


def accuracy(model: str, category: str, share: float) -> dict[str, Any]:
    row = {"model": model, "elicitation": "think", "decoding": "greedy", "category": category, "prompts": 20}
    row |= {"judged": 18, "samples": 1, "accuracy": share, "low": share - 0.1, "high": share + 0.1}
    return {**row, "closed_share": 0.9, "truncated_share": 0.1}


def split_row(quantity: str, value: float, target: str = "all", **changes: Any) -> dict[str, Any]:
    row = {"comparison": "reasoning - base", "first": "distill/seed0", "second": "base/seed1", "target": target}
    row |= {"correspondence": "matched", "phase": target, "quantity": quantity, "n": 20, "value": value}
    row |= {"low": value - 0.1, "high": value + 0.1, "null_value": 0.2, "null_low": 0.1, "null_high": 0.3}
    row |= {"difference": value - 0.2, "difference_low": value - 0.4, "difference_high": value, "p_adjusted": 0.01}
    return {**row, "verdict": "found", "reason": "beyond the null", **changes}


def circuits() -> dict[str, pd.DataFrame]:
    """Eight graphs of which one fails its gate, one has no target and one failed; effects both ways."""
    graphs = [graph(f"p{number}", feature_share=0.6 + 0.05 * number) for number in range(6)]
    graphs += [graph("p6", explains=False, feature_share=0.2, refused="feature share 0.2 is under 0.5")]
    graphs += [not_made("p7", "none", "the response has no box"), not_made("p8", "failed", "MemoryError: too large")]
    acted = [agreement(name, chosen, freezing) for name in ("total", "direct", "baseline_logit", "baseline_norm")
             for chosen in ("stratified", "matched") for freezing in ("frozen", "free")]  # fmt: skip
    judged = [compared("reasoning_base", "depth", 0.3, "found")]
    judged += [compared("reasoning_base", "feature share", 0.05, "not found", p_adjusted=0.6, reason="as its null")]
    judged += [compared("think_answer", "depth", 0.02, "not found", p_adjusted=0.4)]
    nothing = dict.fromkeys(["difference", "low", "high", "p", "p_adjusted", "null_difference"], np.nan)
    for name, reason in (("published", "no folder was given"), ("correct_incorrect", "4 prompts, 20 are needed")):
        judged.append({**compared(name, "depth", 0.0, "not testable", reason=reason), **nothing})
    spent = [{"model": "distill", "seed": 0, "prompt_id": f"p{n}", "target": "answer", "seconds": 0.37 + n,
              "peak_memory_gib": 0.58} for n in range(8)]  # fmt: skip
    reused = {"model": "distill", "seed": 0, "layer": 2, "latent": 17, "graphs": 7, "prompts": 6, "influence": 1.5}
    return {
        "prompt_accuracy": pd.DataFrame([accuracy("distill", "all", 0.6), accuracy("distill", "arithmetic", 0.7)]),
        "graph_summary": pd.DataFrame(graphs),
        "graph_latents": pd.DataFrame([reused]),
        "graph_interventions": pd.DataFrame(acted),
        "graph_costs": pd.DataFrame(spent),
        "motif_profiles": pd.DataFrame([profile("feedforward", 0.5), profile("toggle", -0.02)]),
        "comparisons": pd.DataFrame(judged),
        "split": pd.DataFrame([split_row("wiring", 0.3), split_row("usage_set", 0.5)]),
    }


# what the stages write, so that a column renamed there is missed here
COLUMNS = {
    "graph_summary": summary.COLUMNS,
    "graph_latents": summary.LATENT_COLUMNS,
    "graph_interventions": agreements.COLUMNS,
    "motif_profiles": profiles.COLUMNS,
    "comparisons": comparison.COLUMNS,
    "split": split.COLUMNS,
    "prompt_accuracy": answering.ACCURACY_COLUMNS,
}
