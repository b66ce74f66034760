"""Tables as the stages write them, small enough to add up by hand."""

from __future__ import annotations

import pandas as pd

FVE = {"part": "report", "phase": "all", "mask": "unmasked", "n_unit": "problems", "n": 30, "n_tokens": 5000}


def evaluation(models: list[str], fve: float = 0.9) -> pd.DataFrame:
    """The long table of one dictionary: explained variance, sparsity, spliced loss."""
    rows = [{"quantity": "l0", "model": "pair", "at": "threshold", "value": 23.0, **FVE}]
    rows += [{"quantity": "dead_share", "model": "pair", "at": "threshold", "value": 0.02, **FVE, "n": 768}]
    rows += [{"quantity": "dense_share", "model": "pair", "at": "threshold", "value": 0.2, **FVE, "n": 768}]
    for model in models:
        rows += [{"quantity": "fve", "model": model, "at": at, "value": fve, **FVE} for at in ("threshold", "l0=8")]
        for quantity, value in {"kl_nats": 0.1, "kl_recovered": 0.9, "ce_increase_nats": 0.05}.items():
            where = {**FVE, "phase": "response"}
            rows.append({"quantity": quantity, "model": model, "at": "threshold", "value": value, **where})
    return pd.DataFrame(rows).assign(low=lambda t: t["value"] - 0.01, high=lambda t: t["value"] + 0.01)


def baselines(models: list[str], ablation: float = 1.0) -> pd.DataFrame:
    rows = []
    for model in models:
        rows += [
            {"quantity": "fve", "model": model, "at": at, "value": 0.7, **FVE} for at in ("pca24", "linear_from_others")
        ]
        where = {**FVE, "phase": "response"}
        rows.append({"quantity": "kl_nats", "model": model, "at": "mean_ablation", "value": ablation, **where})
    return pd.DataFrame(rows).assign(low=lambda t: t["value"] - 0.01, high=lambda t: t["value"] + 0.01)


def latents(exclusive: int, shared: int, dead: int = 0) -> pd.DataFrame:
    """A latent table; the exclusive ones belong to the last model and are absent from the first."""
    rows = [(0.02, "reasoning_only", "specific", 0.1, 0.6)] * exclusive + [
        (0.5, "shared", "not_specific", 1.0, 0.9)
    ] * shared
    rows += [(0.5, "dead", "undetermined", float("nan"), float("nan"))] * dead
    table = pd.DataFrame(rows, columns=["delta", "tag", "scaling", "nu_error", "auroc_other"])
    for end in ("", "_low", "_high"):
        table[f"nu_reconstruction{end}"] = table["nu_error"]
        table[f"nu_error{end}"] = table["nu_error"]
    constant = {"decoder_cosine": 0.4, "encoder_cosine": 0.3, "rate": 0.01, "mean_activation": 1.0, "firings": 90}
    constant |= {"rate_think": 0.02, "rate_text": float("nan"), "auroc_owner": 0.95, "template": False}
    constant |= {"replication": "replicated", "replicas": 2, "replica_seeds": 2}
    return table.assign(latent=range(len(table)), **constant)


def responses(model: str, solved: list[bool], elicitation: str = "think") -> pd.DataFrame:
    asked = {"elicitation": elicitation, "decoding": "greedy", "temperature": 0.0, "problems_from": "seen_families"}
    table = pd.DataFrame({"correct": solved}).assign(tokens=[40 + 3 * hit for hit in solved], model=model, **asked)
    table["problem"] = [f"{i} + {i}?" for i in range(len(table))]
    return table.assign(answer="4", response="<b>4</b>")


def divergence(pair: str, model: str, value: float) -> dict:
    """One row of a divergence table, with an interval of 0.05 either way."""
    row = {
        "pair": pair,
        "text": "traces",
        "layer": 3,
        "model": model,
        "mask": "unmasked",
        "n_tokens": 900,
        "n_problems": 9,
    }
    row |= {"relative_l2": value, "relative_l2_low": value - 0.05, "relative_l2_high": value + 0.05, "suggested": 1}
    return row | {f"{name}{end}": 0.5 for name in ("cosine", "l2") for end in ("", "_low", "_high")}


def accuracies(model: str, elicitation: str, accuracy: float) -> pd.DataFrame:
    """The accuracy of one model under one elicitation, two decodings, on seen families and the held-out one."""
    asked = [(decoding, origin) for decoding in ("greedy", "t1") for origin in ("seen_families", "held_out_family")]
    table = pd.DataFrame(asked, columns=["decoding", "problems_from"])
    table["temperature"] = [0.0, 0.0, 1.0, 1.0]
    figures = {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "mean_tokens": 50.0}
    figures |= {"truncated_share": 0.0, "self_check_share": 0.5, "n_problems": 200, "n_samples": 1}
    return table.assign(model=model, elicitation=elicitation, **figures)


def alignment(pair: str) -> dict:
    """An alignment report with one foreign id."""
    foreign = [{"id": 3, "token": "<think>", "model": "base", "why": "never trained", "count": 7}]
    report = {"pair": pair, "text": "traces", "tokens": 1000, "foreign_share": 0.007, "foreign_ids": [3]}
    return {**report, "foreign": foreign, "ids_digest": "00ff"}
