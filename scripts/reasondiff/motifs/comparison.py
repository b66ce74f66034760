"""Do the graphs of two groups differ, prompt by prompt, and by more than a comparison in which there is nothing to
find?

Four comparisons: reasoning model against base, think against answer, graphs from elsewhere against ours, correct
against incorrect responses. Each names its null, and each measure of it gets one verdict.

Source: docs/methods.md §12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reasondiff.config import Comparisons, Prompts
from reasondiff.graphs.graph import FORCED
from reasondiff.motifs.matching import ByPrompt, Group, by_prompt, couple, graphs_of, with_values, within_caliper
from reasondiff.motifs.measures import FAMILIES, MATCH, MOTIF, Measured
from reasondiff.motifs.verdicts import (
    FOUND,
    MIN_PROMPTS,
    NOT_FOUND,
    NOT_TESTABLE,
    at_equal_size,
    chance,
    mean_over_prompts,
    relabellings,
    smallest_p,
    under_exchanged_labels,
)
from reasondiff.statistics import adjusted

SEEDS, LABELS = "seed against seed", "labels permuted within prompt"
AT_EQUAL_SIZE = " at equal size"
"""What the second row of a motif is called after: the difference where both graphs have as many edges."""
MIN_EXPECTED = 5.0
"""A motif that the null expects less often per graph has a log ratio that mostly says how large the graph is."""
COLUMNS = [
    "comparison", "measure", "measure_family", "group_a", "group_b", "n", "value_a", "value_b", "difference", "low",
    "high", "unit", "p", "p_adjusted", "null", "null_difference", "null_low", "null_high", "null_n", "verdict",
    "reason",
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One comparison of two groups, before anything is computed."""

    comparison: str
    first: Group
    second: Group
    couples: pd.DataFrame
    """As `matching.couple` gives them."""
    null: str
    """`SEEDS` (the couples' null graphs are the base's second and first seed) or `LABELS`."""
    refused: str
    """Why nothing can be tested, or empty."""
    note: str
    """How many prompts there are, and how many were left out and why."""


# ------------------------------------------------------------------------------------------------ the four


def compare_graphs(
    measured: Measured, prompts: Prompts, settings: Comparisons, responses: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """{name: table} of the four comparisons, each with `COLUMNS`. `responses`: what all models said to the prompts."""
    samples = judged_samples(responses, prompts.reasoning)
    return {
        "reasoning_base": reasoning_base(measured, prompts, settings),
        "think_answer": think_answer(measured, prompts, settings),
        "published": published(measured, prompts, settings),
        "correct_incorrect": correct_incorrect(measured, prompts, settings, samples),
    }


def reasoning_base(measured: Measured, prompts: Prompts, settings: Comparisons) -> pd.DataFrame:
    """The reasoning model's graphs against the base's, of the same contexts and target tokens, one row per measure.

    Null: the base's second seed against its first. The p of a row is that of a difference *larger than the null's* on
    the same contexts, in either direction. One second seed is one draw: if the three sets of transcoders were three
    seeds and nothing else, each with an effect of its own that is the same on every prompt and far above the scatter
    between prompts, half of the measures would be found. Columns: `COLUMNS`.
    """
    first, second = _first_seed(measured, prompts.reasoning, FORCED), _first_seed(measured, prompts.base, FORCED)
    null = _seed_null(measured, prompts, FORCED)
    couples = couple(measured, first, second, null, on=["prompt_id", "target"])
    note = _both(measured, first, second, couples)
    refused = "there is no base model in this study" if prompts.base is None else ""
    refused = refused or _too_few(couples, settings, note) or _no_second_seed(null, prompts)
    return compare(measured, [Plan("reasoning_base", first, second, couples, SEEDS, refused, note)], settings)


def think_answer(measured: Measured, prompts: Prompts, settings: Comparisons) -> pd.DataFrame:
    """The reasoning model's graphs of think targets against those of answer targets of the same prompt, where the two
    contexts are about as long and the two targets about as uncertain. Null: labels permuted within prompt."""
    return _of_one_model("think_answer", ("think", "answer"), settings.entropy_caliper, measured, prompts, settings, "")


def correct_incorrect(
    measured: Measured, prompts: Prompts, settings: Comparisons, samples: Mapping[str, int]
) -> pd.DataFrame:
    """The reasoning model's graphs of a correct response's answer against those of an incorrect one to the same
    prompt, where the two contexts are about as long. Null: labels permuted within prompt.

    `samples`: how many sampled responses of each prompt were judged. Prompts with fewer than `min_samples` are left
    out, and counted.
    """
    own = graphs_of(measured, _first_seed(measured, prompts.reasoning, None))["prompt_id"].unique()
    few = [prompt for prompt in own if samples.get(prompt, 0) < settings.min_samples]
    kept = _without(measured, few)
    note = f"{len(few)} prompts have fewer than {settings.min_samples} judged samples; " if few else ""
    return _of_one_model("correct_incorrect", ("correct", "incorrect"), np.inf, kept, prompts, settings, note)


def published(measured: Measured, prompts: Prompts, settings: Comparisons) -> pd.DataFrame:
    """Graphs from elsewhere against the reasoning model's and the base's, of the same prompts (their target `prompt`).
    Null: the base's second seed against its first. With too few prompts in common, what is given describes the two
    groups and tests nothing."""
    name = settings.published
    first = Group(f"published/{name}" if name else "published", f"published/{name}", None)
    refused = "" if name else "no published graphs were given (comparisons.published)"
    if name and not len(graphs_of(measured, first)):
        refused = f"no motifs were counted in graphs of the source {name}"
    null = _seed_null(measured, prompts, ("prompt",))
    plans = []
    for model in dict.fromkeys([prompts.reasoning, prompts.base]):
        if model is not None:
            second = _first_seed(measured, model, ("prompt",))
            couples = couple(measured, first, second, null, on=["prompt_id"])
            note = _both(measured, first, second, couples)
            reason = refused or _too_few(couples, settings, note) or _no_second_seed(null, prompts)
            plans.append(Plan("published", first, second, couples, SEEDS, reason, note))
    return compare(measured, plans, settings)


def judged_samples(responses: pd.DataFrame, model: str) -> dict[str, int]:
    """{prompt: sampled responses of a model that were judged}."""
    asked = responses[(responses["model"] == model) & (responses["decoding"] == "sampled") & responses["judged"]]
    return {str(prompt): int(count) for prompt, count in asked.groupby("prompt_id").size().items()}


def _of_one_model(
    name: str,
    targets: tuple[str, str],
    entropy_nats: float,
    measured: Measured,
    prompts: Prompts,
    settings: Comparisons,
    note: str,
) -> pd.DataFrame:
    source = _first_seed(measured, prompts.reasoning, None).source
    first, second = (Group(f"{source} {target}", source, (target,)) for target in targets)
    couples = couple(measured, first, second, None, on=["prompt_id"])
    alike = within_caliper(measured, couples, settings.length_caliper, entropy_nats)
    words = f"context length within a factor of {settings.length_caliper:g}"
    words += "" if np.isinf(entropy_nats) else f" and target entropy within {entropy_nats:g} nats"
    note += f"{_both(measured, first, second, couples)}, {int(alike.sum())} of these match ({words})"
    couples = couples[alike].reset_index(drop=True)
    refused = _too_few(couples, settings, note)
    return compare(measured, [Plan(name, first, second, couples, LABELS, refused, note)], settings)


# ------------------------------------------------------------------------------------------------ groups


def _seeds(measured: Measured, model: str | None) -> list[str]:
    """The sources of a model, by seed."""
    sources = [source for source in measured.graphs["source"].unique() if source.rsplit("/seed", 1)[0] == model]
    return sorted(sources, key=lambda source: int(source.rsplit("/seed", 1)[1]))


def _first_seed(measured: Measured, model: str | None, targets: tuple[str, ...] | None) -> Group:
    source = next(iter(_seeds(measured, model)), f"{model or 'base'}/seed0")
    return Group(source, source, targets)


def _seed_null(measured: Measured, prompts: Prompts, targets: tuple[str, ...]) -> tuple[Group, Group] | None:
    """The base's second seed and its first, or None."""
    seeds = _seeds(measured, prompts.base)
    return (Group(seeds[1], seeds[1], targets), Group(seeds[0], seeds[0], targets)) if len(seeds) > 1 else None


def _no_second_seed(null: tuple[Group, Group] | None, prompts: Prompts) -> str:
    if null is not None:
        return ""
    return f"{prompts.base or 'the base'} has no graphs of a second seed, so there is no null"


def _both(measured: Measured, first: Group, second: Group, couples: pd.DataFrame) -> str:
    a, b = (set(graphs_of(measured, group)["prompt_id"]) for group in (first, second))
    return f"{couples['prompt_id'].nunique()} of {len(a | b)} prompts have both"


def _too_few(couples: pd.DataFrame, settings: Comparisons, note: str) -> str:
    prompts, needed = couples["prompt_id"].nunique(), _needed(settings)
    return f"{note}; {needed} are needed" if prompts < needed else ""


def _needed(settings: Comparisons) -> int:
    return max(settings.min_prompts, MIN_PROMPTS)


def _without(measured: Measured, prompts: list[str]) -> Measured:
    kept = ~measured.graphs["prompt_id"].isin(prompts)
    tables = (table[kept].reset_index(drop=True) for table in (measured.graphs, measured.values, measured.expected))
    return Measured(*tables, measured.families)


# ------------------------------------------------------------------------------------------------ one comparison


def compare(measured: Measured, plans: Sequence[Plan], settings: Comparisons) -> pd.DataFrame:
    """One row per plan and measure (`COLUMNS`), and for each motif a second one at equal size, in the family `match`.

    `value_a`, `value_b` and `difference` are means over prompts, each prompt's being the mean over its couples, with a
    95 % interval bootstrapped over prompts. p: `verdicts.chance`, adjusted after Benjamini and Hochberg over all
    testable rows of all plans that claim something (motifs, shapes, what is new) together; what groups should have in
    common, and motifs at equal size, are two families of their own. A row is *found* when its adjusted p is at most
    the accepted rate of false discoveries.
    """
    table = pd.concat(
        [_compared(measured, plan, settings).assign(plan=number) for number, plan in enumerate(plans)],
        ignore_index=True,
    )
    _judge(table, plans, settings)
    return table[COLUMNS]


def _compared(measured: Measured, plan: Plan, settings: Comparisons) -> pd.DataFrame:
    """The rows of one plan without verdicts."""
    couples = with_values(measured, plan.couples)
    means = by_prompt(couples)
    table = _values(means, len(measured.families), settings)
    table = table.assign(measure=list(measured.families), measure_family=list(measured.families.values()))
    if not len(plan.couples):  # values of each group's own prompts
        table["value_a"], table["value_b"] = (_mean_of(measured, group) for group in (plan.first, plan.second))
    _test(table, means, plan, settings)
    claims = table["measure_family"] != MATCH
    table = table.assign(expected=couples.expected[:-1], tested_with=np.where(claims, "claims", MATCH))
    table = pd.concat([table, _at_equal_size(table, means, plan, settings)], ignore_index=True)
    order = pd.Categorical(table["measure_family"], FAMILIES, ordered=True).codes
    return table.iloc[np.argsort(order, kind="stable")].assign(
        comparison=plan.comparison, group_a=plan.first.name, group_b=plan.second.name, unit="prompt", null=plan.null
    )


def _values(means: ByPrompt, measures: int, settings: Comparisons) -> pd.DataFrame:
    """n, both groups' means, their difference and the null's, each with its interval."""
    rows = []
    for column in range(measures):
        difference = means.difference[:, column]
        known = np.isfinite(difference)
        found = mean_over_prompts(difference, settings.bootstrap, settings.seed)
        null = mean_over_prompts(means.null[:, column], settings.bootstrap, settings.seed)
        a, b = (side[known, column].mean() if known.any() else np.nan for side in (means.first, means.second))
        rows.append({
            "n": found.n, "value_a": a, "value_b": b, "difference": found.value, "low": found.low, "high": found.high,
            "null_difference": null.value, "null_low": null.low, "null_high": null.high, "null_n": null.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _mean_of(measured: Measured, group: Group) -> np.ndarray:
    graphs = graphs_of(measured, group)
    by = measured.values.iloc[graphs["row"].to_numpy()].groupby(graphs["prompt_id"].to_numpy())
    return by.mean().mean().to_numpy()


def _test(table: pd.DataFrame, means: ByPrompt, plan: Plan, settings: Comparisons) -> None:
    """Adds p, `p_alone` (of a difference from 0) and, for exchanged labels, the null's columns."""
    signs = relabellings(len(means.first), settings.permutations, settings.seed)
    difference = means.difference[:, :-1]
    table["p_alone"] = chance(difference, np.zeros_like(difference), signs)
    if plan.null == SEEDS:
        beyond_null = chance(means.beside_null[:, :-1], means.null[:, :-1], signs)
        # what should not differ is not excused by a null in which it differs as well
        table["p"] = np.where(table["measure_family"] == MATCH, table["p_alone"], beyond_null)
        return
    table["p"], table["null_n"] = table["p_alone"], table["n"]
    if len(difference):
        table[["null_difference", "null_low", "null_high"]] = under_exchanged_labels(difference, signs).T


def _at_equal_size(table: pd.DataFrame, means: ByPrompt, plan: Plan, settings: Comparisons) -> pd.DataFrame:
    """The rows of motifs, with the difference that is left where both graphs have as many edges."""
    motifs = np.flatnonzero(table["measure_family"] == MOTIF)
    rows = table.iloc[motifs].assign(measure_family=MATCH, tested_with=AT_EQUAL_SIZE)
    rows["measure"] += AT_EQUAL_SIZE
    difference, size = means.difference[:, motifs], means.difference[:, [-1]]
    signs = relabellings(len(difference), settings.permutations, settings.seed)
    found = [at_equal_size(column, size[:, 0], settings.bootstrap, settings.seed) for column in difference.T]
    rows["difference"], rows["low"], rows["high"] = (
        [getattr(one, name) for one in found] for name in ("value", "low", "high")
    )
    sizes = np.broadcast_to(size, difference.shape)
    rows["p_alone"] = chance(difference, np.zeros_like(difference), signs, sizes, np.zeros_like(difference))
    rows["p"] = rows["p_alone"]
    if plan.null == SEEDS:
        sides = (means.beside_null, means.null)
        sizes = [np.broadcast_to(side[:, [-1]], difference.shape) for side in sides]
        rows["p"] = chance(*(side[:, motifs] for side in sides), signs, *sizes)
    return rows


# ------------------------------------------------------------------------------------------------ verdicts


def _judge(table: pd.DataFrame, plans: Sequence[Plan], settings: Comparisons) -> None:
    """Adds p_adjusted, verdict and reason."""
    table["reason"] = [_untestable(row, plans[row.plan], settings) for row in table.itertuples()]
    testable = (table["reason"] == "").to_numpy()
    for name in ("p", "p_alone"):
        table.loc[~testable, name] = np.nan
    families = table.groupby("tested_with", sort=False)
    table["p_adjusted"] = families["p"].transform(lambda p: adjusted(p.to_numpy(np.float64)))
    table["alone_adjusted"] = families["p_alone"].transform(lambda p: adjusted(p.to_numpy(np.float64)))
    table["tests"] = families["p"].transform("count")
    found = testable & (table["p_adjusted"] <= settings.false_discovery_rate).to_numpy()
    table["verdict"] = np.select([found, testable], [FOUND, NOT_FOUND], NOT_TESTABLE)
    words = [_words(row, table, plans[row.plan], settings) for row in table.itertuples()]
    table["reason"] = table["reason"].where(~testable, words)


def _untestable(row, plan: Plan, settings: Comparisons) -> str:
    """Why a row cannot be tested, or nothing."""
    needed = _needed(settings)
    if plan.refused:
        return plan.refused
    if row.expected < MIN_EXPECTED:
        return f"rare: the null expects it {row.expected:.2g} times per graph, {MIN_EXPECTED:g} are needed"
    if row.n < needed:
        return f"{row.n} prompts have a value in both groups, {needed} are needed ({plan.note})"
    if row.null_n < needed and row.tested_with != MATCH:
        return f"{row.null_n} prompts have a value in the null's groups as well, {needed} are needed ({plan.note})"
    return "" if np.isfinite(row.p) else "graphs differ in size by as much on every prompt: equal size is not in sight"


def _words(row, table: pd.DataFrame, plan: Plan, settings: Comparisons) -> str:
    """What a verdict rests on."""
    rate, by_seeds = settings.false_discovery_rate, plan.null == SEEDS and row.tested_with != MATCH
    said = "within chance"
    if row.verdict == FOUND:
        said = "larger than between two seeds of one model, beyond chance" if by_seeds else "beyond chance"
        if row.tested_with == "claims":
            said += _equal_size_words(row, table) + _unmatched_words(row, table)
    elif by_seeds and row.alone_adjusted <= rate:
        said = "beyond chance, but not larger than the difference between two seeds of one model"
    elif smallest_p(row.n, settings.permutations) * row.tests > rate:
        said += f"; alone among {row.tests} tests no measure could be found with {row.n} prompts"
    return f"{said} ({plan.note})"


def _equal_size_words(row, table: pd.DataFrame) -> str:
    beside = table[(table["plan"] == row.plan) & (table["measure"] == row.measure + AT_EQUAL_SIZE)]
    if beside.empty:
        return ""
    same = ((beside["verdict"] == FOUND) & (beside["difference"] * row.difference > 0)).all()
    return "; at equal size as well" if same else "; not at equal size"


def _unmatched_words(row, table: pd.DataFrame) -> str:
    differ = (table["plan"] == row.plan) & (table["tested_with"] == MATCH) & (table["verdict"] == FOUND)
    return f"; the groups also differ in {', '.join(table.loc[differ, 'measure'])}" if differ.any() else ""
