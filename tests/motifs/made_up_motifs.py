"""Tables as the workflow writes them, of graphs whose motifs and shapes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from reasondiff.config import Comparisons, Graphs, Interventions, Prompts
from reasondiff.motifs.measures import MOTIF, Measured

HEADLINE = (0.8, 0.98)
MOTIFS = (("triad", "030T"), ("typed", "030T feature>feature>logit"), ("signed", "coherent_ffl"))
PHASES = {"prompt": "prompt", "think": "think", "answer": "answer", "correct": "answer", "incorrect": "answer"}
SOURCES = (("distill", 0), ("base", 0), ("base", 1))

SETTINGS = Comparisons(
    published=None, min_prompts=6, min_samples=8, length_caliper=2.0, entropy_caliper=0.5, permutations=999,
    bootstrap=200, false_discovery_rate=0.05, seed=0,
)  # fmt: skip
PROMPTS = Prompts(
    file="prompts.yaml", reasoning="distill", base="base", elicitations={"distill": "think", "base": "solution"},
    samples=8, temperature=1.0, max_new_tokens=64, batch_size=8, think_target="matched_entropy",
    think_context_share=0.7, answer_target="boxed", seed=0,
)  # fmt: skip


GRAPHS = Graphs(
    window=8, max_features=None, batch_size=8, runners_up=0, stored_share=1.0, stored_nodes=100, prune_nodes=1.0,
    prune_edges=1.0, prompts_of_job=1, viewer_examples=0, labelled=0, links=None, seed=0,
    interventions=Interventions(features=0, quantiles=1, matched=0, bootstrap=100, seed=0),
)  # fmt: skip


def prompt_names(n: int) -> list[str]:
    return [f"p{number:02d}" for number in range(n)]


def summary_of(
    prompts: Iterable[str],
    seed: int,
    sources: Iterable[tuple[str, int]] = SOURCES,
    targets: Iterable[str] = ("prompt", "think", "answer"),
) -> pd.DataFrame:
    """One row per source, prompt and target; the scores are noise around the same for all."""
    rng = np.random.default_rng(seed)
    rows = [
        {"model": model, "seed": number, "prompt_id": prompt, "category": "arithmetic", "target": target,
         "phase": PHASES[target], "status": "traced", "reason": None}
        for model, number in sources for prompt in prompts for target in targets
    ]  # fmt: skip
    table, n = pd.DataFrame(rows), len(rows)
    noise = {name: rng.normal(0.5, 0.1, n) for name in ("depth", "feature_share", "crossing_share", "probability")}
    table = table.assign(**noise, entropy=rng.uniform(0.2, 0.4, n))
    table["edges"] = rng.integers(900, 1100, n)
    return table.assign(nodes=200, features=150, replacement=0.8, completeness=0.9, replaced_kl=0.1, explains=True)


def facts_of(summary: pd.DataFrame, tokens: int = 70) -> pd.DataFrame:
    """What `facts_of_graphs` and `new_shares` say of the same graphs, the same of all."""
    source = summary["model"] + "/seed" + summary["seed"].astype(str)
    keys = summary[["prompt_id", "target"]].assign(source=source)
    return keys.assign(context_tokens=tokens, reused_share=0.3, linked_reasoning_only=0.2, linked_control=0.1)


def measured_at_random(
    rng: np.random.Generator, prompts: int, measures: int, targets: tuple[str, ...], sources: tuple[str, ...]
) -> Measured:
    """Graphs whose motifs are noise about a level of their prompt: between groups there is nothing to find."""
    rows = [(source, prompt, target) for prompt in prompt_names(prompts) for source in sources for target in targets]
    graphs = pd.DataFrame(rows, columns=["source", "prompt_id", "target"])
    names = [f"typed {number}" for number in range(measures)]
    level = rng.normal(0, 1, (prompts, 1, measures))
    noise = level + rng.exponential(1, (prompts, len(sources) * len(targets), measures))
    values = pd.DataFrame(noise.reshape(len(rows), measures), columns=names)
    return Measured(
        graphs.assign(category="arithmetic", entropy=0.3, context_tokens=70.0, log_edges=rng.normal(7, 0.1, len(rows))),
        values, pd.DataFrame(50.0, index=values.index, columns=names), dict.fromkeys(names, MOTIF),
    )  # fmt: skip


def motifs_of(
    summary: pd.DataFrame,
    seed: int,
    motifs: Iterable[tuple[str, str]] = MOTIFS,
    effect: Callable[[pd.Series, str], float] = lambda graph, motif: 0.0,
    expected: float = 50.0,
    spread: float = 0.1,
    threshold: tuple[float, float] = HEADLINE,
) -> pd.DataFrame:
    """A row per graph and motif, under the null `typed`: log ratios scatter by `spread` about `effect`."""
    rng = np.random.default_rng(seed)
    rows = []
    for graph in summary.to_dict("records"):
        for family, motif in motifs:
            ratio = effect(graph, motif) + spread * rng.normal()
            count = (expected + 0.5) * np.exp(ratio) - 0.5
            rows.append({
                **{name: graph[name] for name in ("model", "seed", "prompt_id", "category", "target", "phase")},
                "edges": graph["edges"], "source": f"{graph['model']}/seed{graph['seed']}",
                "name": f"{graph['prompt_id']}/{graph['target']}",
                "node_share": threshold[0], "edge_share": threshold[1], "nodes": 200, "null": "typed",
                "family": family, "motif": motif, "count": count, "null_mean": expected, "null_sd": 5.0, "states": 40,
                "graph_states": 100, "samples": 199, "log_ratio": ratio,
                "delta": (count - expected) / (count + expected + 4), "z": (count - expected) / 5.0, "p": 0.5,
                "p_adjusted": 0.9, "mobility": 0.6, "effective_samples": 80.0, "rank": 3, "motif_is_determined": False,
            })  # fmt: skip
    return pd.DataFrame(rows)
