"""What do the long tables of the transcoders say, set by set and layer by layer?

A set is the transcoders of all studied layers of one model, point and seed. Source: docs/methods.md §6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from reasondiff.config import TranscoderGates
from reasondiff.report.wording import Number
from reasondiff.statistics import bootstrap, ratio

SET = ["model", "text", "point", "seed"]
KEY = [*SET, "layer", "phase"]
ALL = "all"  # as a layer: those of the set replaced at once
HEADLINE = "headline"  # as a phase: losses over the response where the text has any, the rest over all tokens
PHASES = (HEADLINE, "all", "prompt", "think", "answer", "response", "template", "text")
REPLACEMENTS = ("transcoder", "linear", "mean_ablation", "zero_ablation", "identity")
IN_PLACE = ("transcoder", "report", "unmasked")
LOSSES = {"ce_increase": "ce_increase_nats", "kl": "kl_nats", "top1": "top1_agreement"}

WITH_INTERVAL = {  # {column: (quantity, replacement, part, mask)}
    "fvu": ("fvu", *IN_PLACE),
    "fvu_linear": ("fvu", "linear", "report", "unmasked"),
    "fvu_with_sinks": ("fvu", "transcoder", "report", "all"),
    "fvu_family": ("fvu", "transcoder", "family", "unmasked"),
    "ce_original": ("ce_original_nats", *IN_PLACE),
    **{f"{name}_{at}": (told, at, "report", "unmasked") for at in REPLACEMENTS for name, told in LOSSES.items()},
    **{f"everywhere_{at}": ("ce_increase_nats", at, "report", "all") for at in REPLACEMENTS},
    **{f"recovered_{floor}": (f"ce_recovered_{floor}", *IN_PLACE) for floor in ("mean", "zero", "linear")},
    "kl_recovered_mean": ("kl_recovered_mean", *IN_PLACE),
    "top1_excess": ("top1_excess", *IN_PLACE),
}
WITHOUT_INTERVAL = {name: (name, *IN_PLACE) for name in ("l0", "dead_share", "rare_share", "dense_share")}
WITHOUT_INTERVAL["dead_rate_bound"] = ("dead_rate_bound", *IN_PLACE)
COUNTED = {  # {column of a sample size: (figure whose sample it is, its column)}
    "n_problems": ("fvu", "n"),
    "n_tokens": ("fvu", "n_tokens"),
    "n_latents": ("dead_share", "n"),
    "n_spliced_problems": ("ce_increase_transcoder", "n"),
    "n_targets": ("ce_increase_transcoder", "n_tokens"),
}
FAITHFULNESS_COLUMNS = [
    *KEY, *(f"{name}{end}" for name in WITH_INTERVAL for end in ("", "_low", "_high")), *WITHOUT_INTERVAL, *COUNTED,
]  # fmt: skip
REPLACED_COLUMNS = [
    *KEY, "at", *(f"{name}{end}" for name in (*LOSSES, "everywhere") for end in ("", "_low", "_high")),
    "n_problems", "n_targets",
]  # fmt: skip
ANSWER_COLUMNS = [
    *SET, "elicitation", "own", "transcoders", "change", "low", "high", "lost", "gained", "tokens_own",
    "tokens_transcoders", "truncated_own", "truncated_transcoders", "n_problems",
]  # fmt: skip


# ------------------------------------------------------------------------------------------------ faithfulness


def faithfulness(evaluations: pd.DataFrame) -> pd.DataFrame:
    """One wide row per set, layer (`all`: replaced at once) and phase, `headline` among them: what a model does with
    a prompt that is not its own to predict says little of it. Figures that were not measured are NaN.

    `evaluations` are the long tables with the columns of `SET`. Shares are from 0 to 1, losses in nats per token.
    """
    if evaluations.empty:
        return pd.DataFrame(columns=FAITHFULNESS_COLUMNS)
    table = _with_headlines(evaluations.astype({"layer": str}))
    asked = {**WITH_INTERVAL, **WITHOUT_INTERVAL}
    found = {name: _measured(table, *what) for name, what in asked.items()}
    columns = {}
    for name, rows in found.items():
        columns[name] = rows["value"]
        if name in WITH_INTERVAL:
            columns |= {f"{name}_low": rows["low"], f"{name}_high": rows["high"]}
    columns |= {name: found[figure][column] for name, (figure, column) in COUNTED.items()}
    keys = _in_order(table[KEY].drop_duplicates())
    wide = pd.concat(columns, axis=1).reindex(pd.MultiIndex.from_frame(keys))
    return wide.copy().reset_index()[FAITHFULNESS_COLUMNS]  # a copy lies in one piece: pandas warns of many


def _with_headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The table with rows of the phase `headline`: copies of those that figures, findings and gates are about."""
    is_loss = ~table["quantity"].isin(["fvu", *WITHOUT_INTERVAL])
    of_response = (is_loss & (table["phase"] == "response")).groupby([table[name] for name in SET]).transform("any")
    wanted = np.where(is_loss & of_response, "response", "all")
    return pd.concat([table, table[table["phase"] == wanted].assign(phase=HEADLINE)], ignore_index=True)


def _measured(table: pd.DataFrame, quantity: str, at: str, part: str, mask: str) -> pd.DataFrame:
    """The rows of one figure by set, layer and phase."""
    chosen = (table["quantity"] == quantity) & (table["at"] == at) & (table["part"] == part) & (table["mask"] == mask)
    return table[chosen].set_index(KEY)


def _in_order(keys: pd.DataFrame) -> pd.DataFrame:
    """Sets as they come, then layers by number and all of them last, then phases."""
    order = pd.DataFrame(
        {
            "set": keys.groupby(SET, sort=False).ngroup(),
            "layer": [math.inf if layer == ALL else int(layer) for layer in keys["layer"]],
            "phase": [PHASES.index(phase) for phase in keys["phase"]],
        },
        index=keys.index,
    )
    return keys.loc[order.sort_values(["set", "layer", "phase"]).index]


def told(table: pd.DataFrame, phases: tuple[str, ...] = (HEADLINE,)) -> pd.DataFrame:
    """Rows of some phases of a table as `faithfulness` gives it, or as it is read back from its file, where digits have
    become numbers; with the columns `set` (`base, seed 0`) and `place` (as gates name it)."""
    rows = table[table["phase"].isin(phases)].astype({"layer": str, "point": str}).copy()
    sets = [f"{row.model}, seed {row.seed}" for row in rows.itertuples()]
    layers = ["all" if layer == ALL else f"layer{layer}" for layer in rows["layer"]]
    places = [f"{row.model}/{row.text}/{row.point}/seed{row.seed}" for row in rows.itertuples()]
    return rows.assign(set=sets, place=[f"{place}/{layer}" for place, layer in zip(places, layers, strict=True)])


def by_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `told` the rows of layers replaced alone."""
    return rows[rows["layer"] != ALL]


def at_once(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `told` the rows of all layers of a set replaced together."""
    return rows[rows["layer"] == ALL]


def by_replacement(rows: pd.DataFrame, replacements: Iterable[str] = REPLACEMENTS) -> pd.DataFrame:
    """What each replacement costs: one row for each row of `told` and replacement, in the order of the rows."""
    kept = rows.rename(columns={"n_problems": "n_imitated_problems", "n_spliced_problems": "n_problems"})
    parts = []
    for at in replacements:
        names = {
            f"{name}_{at}{end}": f"{name}{end}" for name in (*LOSSES, "everywhere") for end in ("", "_low", "_high")
        }
        constant = [*KEY, "set", "n_problems", "n_targets"]
        parts.append(kept[[*constant, *names]].rename(columns=names).assign(at=at))
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def is_informative(mean_ablation_nats: Number, gates: TranscoderGates) -> bool:
    """Whether ablating costs enough for a share recovered to mean anything; a cost that is not known does not."""
    return bool(mean_ablation_nats >= gates.uninformative_nats)


# ------------------------------------------------------------------------------------------------ answers


def answer_changes(responses: pd.DataFrame, resamples: int, seed: int, min_problems: int) -> pd.DataFrame:
    """Accuracy of each model with its own MLPs and with transcoders on the same problems, one row per set and way of
    asking: shares solved, the paired change with its 95 % interval over problems, problems lost and gained."""
    rows = []
    for key, group in responses.groupby([*SET, "elicitation"], sort=False) if len(responses) else ():
        own, replaced = (_by_problem(group[group["mlps"] == mlps]) for mlps in ("own", "transcoders"))
        both = own.add_suffix("_own").join(replaced.add_suffix("_transcoders"), how="inner")
        difference = both["correct_transcoders"] - both["correct_own"]
        sums = np.stack([difference, np.ones(len(both))], axis=1)
        change = bootstrap(sums, ratio, resamples, seed, min_problems)
        row = {"own": both["correct_own"].mean(), "transcoders": both["correct_transcoders"].mean()}
        row |= {"change": change.value, "low": change.low, "high": change.high, "n_problems": change.n}
        row |= {"lost": int((difference < 0).sum()), "gained": int((difference > 0).sum())}
        row |= {name: both[name].mean() for name in ANSWER_COLUMNS if name.startswith(("tokens_", "truncated_"))}
        rows.append({**dict(zip([*SET, "elicitation"], key, strict=True)), **row})
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def _by_problem(responses: pd.DataFrame) -> pd.DataFrame:
    return responses.set_index("problem_index")[["correct", "tokens", "truncated"]].astype(float)


def side_by_side(responses: pd.DataFrame, shown: int) -> pd.DataFrame:
    """The first `shown` problems of each set with both answers, under the set's last (most elaborate) way of asking."""
    parts = []
    for _, group in responses.groupby(SET, sort=False) if len(responses) else ():
        asked = group[group["elicitation"] == group["elicitation"].iloc[-1]]
        own, replaced = (asked[asked["mlps"] == mlps].set_index("problem_index") for mlps in ("own", "transcoders"))
        beside = replaced[["response", "correct"]].add_suffix("_transcoders")
        parts.append(own.join(beside, how="inner").sort_index().head(shown))
    columns = [*SET, "elicitation", "problem", "answer", "response", "correct", "response_transcoders"]
    columns.append("correct_transcoders")
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
