"""Tables of transcoders as the stages write them, with losses that are set by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

PROBLEMS, TARGETS, LATENTS = 40, 9000, 768
COSTS = {"transcoder": 0.01, "linear": 0.1, "mean_ablation": 1.0, "zero_ablation": 2.0}  # nats, of a good layer
ALL_COSTS = {"transcoder": 0.04, "linear": 0.4, "mean_ablation": 5.0, "zero_ablation": 8.0, "identity": 0.0}
FLOORS = {"mean_ablation": "mean", "zero_ablation": "zero", "linear": "linear"}
SPREAD = 0.1  # half of an interval, as a share of its figure


def evaluation(
    layers: Mapping[int, Mapping[str, float]] | None = None, together: Mapping[str, float] | None = None, **shares
) -> pd.DataFrame:
    """The long table of one set. `layers` gives what differs from `COSTS` at each layer (two good layers if None),
    `together` what differs from `ALL_COSTS`; `shares` the dead and dense ones, of every layer."""
    rows: list[dict] = []
    for layer, costs in ({0: {}, 1: {}} if layers is None else layers).items():
        rows += _imitation(str(layer), {"dead_share": 0.02, "dense_share": 0.005, **shares})
        rows += _losses(str(layer), {**COSTS, **costs})
    return pd.DataFrame(rows + _losses("all", {**ALL_COSTS, **(together or {})}))


def _imitation(layer: str, shares: Mapping[str, float]) -> list[dict]:
    rows = []
    variance = [("transcoder", "unmasked", "report", 0.1), ("transcoder", "all", "report", 0.03)]
    variance += [("linear", "unmasked", "report", 0.4), ("transcoder", "unmasked", "family", 0.12)]
    for at, mask, part, value in variance:
        for phase in ("all", "think", "answer"):
            where = {"layer": layer, "part": part, "phase": phase, "mask": mask, "at": at, "n_unit": "problems"}
            rows.append(_row("fvu", value, n=PROBLEMS, n_tokens=TARGETS, **where))
    where = {"layer": layer, "part": "report", "mask": "unmasked", "at": "transcoder", "n_tokens": TARGETS}
    for phase, l0 in {"all": 7.9, "think": 7.95, "answer": 7.5}.items():
        rows.append(_plain("l0", l0, n=TARGETS, n_unit="tokens", phase=phase, **where))
    for quantity, value in {**shares, "rare_share": 0.0, "dead_rate_bound": 3 / TARGETS}.items():
        rows.append(_plain(quantity, value, n=LATENTS, n_unit="latents", phase="all", **where))
    return rows


def _losses(layer: str, costs: Mapping[str, float]) -> list[dict]:
    rows = []
    for phase, mask in (("all", "unmasked"), ("think", "unmasked"), ("answer", "unmasked"), ("all", "all")):
        for at, nats in costs.items():
            where = {"layer": layer, "part": "report", "phase": phase, "mask": mask, "at": at, "n_unit": "problems"}
            where |= {"n": PROBLEMS, "n_tokens": TARGETS}
            rows += [_row("ce_original_nats", 0.2, **where), _row("ce_increase_nats", nats, **where)]
            rows += [_row("kl_nats", 1.2 * nats, **where), _row("top1_agreement", math.exp(-nats), **where)]
            if at == "transcoder":
                rows += _compared(costs, where)
    return rows


def _compared(costs: Mapping[str, float], where: Mapping[str, object]) -> list[dict]:
    rows = [
        _row(f"ce_recovered_{name}", 1 - costs["transcoder"] / costs[floor], **where) for floor, name in FLOORS.items()
    ]
    excess = math.exp(-costs["transcoder"]) - math.exp(-costs["linear"])
    return [*rows, _row("top1_excess", excess, **where)]


def _row(quantity: str, value: float, **where: object) -> dict:
    reach = SPREAD * abs(value)
    return {"quantity": quantity, "value": value, "low": value - reach, "high": value + reach, **where}


def _plain(quantity: str, value: float, **where: object) -> dict:
    return {"quantity": quantity, "value": value, "low": math.nan, "high": math.nan, **where}


def sweep() -> pd.DataFrame:
    """Three points on the layers 0 and 2, of which only layer 0 is informative; `x4k4` has too many dead latents."""
    figures = {  # {point: (expansion, k, CE increase, dead share)}
        "x4k4": (4, 4, 0.09, 0.2),
        "x4k8": (4, 8, 0.03, 0.02),
        "x8k8": (8, 8, 0.02, 0.05),
    }
    rows = []
    for point, (expansion, k, nats, dead) in figures.items():
        settings = {"point": point, "expansion": expansion, "k": k, "latents": 96 * expansion, "l0": k - 0.1}
        sample = {"n_problems": PROBLEMS, "n_tokens": TARGETS, "fvu": 0.2, "fvu_linear": 0.4}
        losses = {"ce_increase_nats": nats, "ce_low": 0.9 * nats, "ce_high": 1.1 * nats}
        recovered = {"ce_recovered": 1 - nats, "recovered_low": 1 - 1.2 * nats, "recovered_high": 1 - 0.8 * nats}
        shares = {"dead_share": dead, "dense_share": 0.001}
        for layer, cost in {"0": 1.0, "2": 0.004, "all": 1.004}.items():
            floors = {"mean_ablation_nats": cost, "zero_ablation_nats": 2 * cost, "linear_nats": 0.1 * cost}
            rows.append({**settings, "layer": layer, **losses, **floors, **recovered, **shares, **sample})
    return pd.DataFrame(rows)


CHOICE = {
    "point": "x4k8",
    "how": "sweep",
    "qualified": True,
    "reason": "x4k8 is the sparsest of 2 that qualify: L0 7.9 of 384 latents",
    "front": ["x4k8"],
    "refused": {"x4k4": "layer 0: 20.0% of latents are dead (limit 0.1)"},
    "card": {"code": "00ff"},
}


def answers(model: str, own: list[bool], replaced: list[bool], elicitation: str = "think") -> pd.DataFrame:
    """Responses of one model with its own MLPs and with transcoders to the same problems."""
    parts = []
    for mlps, solved in {"own": own, "transcoders": replaced}.items():
        table = pd.DataFrame({"correct": solved}).assign(model=model, mlps=mlps, elicitation=elicitation)
        table["problem_index"] = range(len(table))
        table["problem"] = [f"{i} plus {i}?" for i in range(len(table))]
        table["response"] = [f"<i>{mlps} says {i}</i>" for i in range(len(table))]
        parts.append(table)
    constant = {"decoding": "greedy", "temperature": 0.0, "problems_from": "seen_families", "answer": "4"}
    return pd.concat(parts, ignore_index=True).assign(tokens=40, truncated=False, sample=0, **constant)
