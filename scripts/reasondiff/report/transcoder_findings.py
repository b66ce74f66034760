"""What may be said of how faithfully transcoders imitate their MLPs?"""

from __future__ import annotations

import pandas as pd

from reasondiff.config import TranscoderGates
from reasondiff.report.blocks import Finding
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.judging import FAIL, PASS
from reasondiff.report.transcoder_gates import LAYER_GATES
from reasondiff.report.transcoder_tables import at_once, by_layer, is_informative, told
from reasondiff.report.wording import decimals, direction, ends, interval, listed, number, runs

ONE_TRAINING = "interval over problems; one training per seed"
IDENTITY_LOSSES = ["ce_increase_identity", "kl_identity", "everywhere_identity"]
IDENTITY_IS_AT_FAULT = (
    "Replacing MLPs by their own output changes the model. It must not: the replacement is at fault, and none of "
    "these figures can be believed."
)


def transcoder_findings(study: StudyParts, tables: StudyTables) -> list[Finding]:
    """All layers at once, then layer by layer; nothing where no set was evaluated."""
    rows = told(tables.summaries["transcoders"])
    if rows.empty:
        return []
    return [_at_once(at_once(rows), study, tables), _layer_by_layer(by_layer(rows), study, tables)]


# ------------------------------------------------------------------------------------------------ all at once


def _at_once(rows: pd.DataFrame, study: StudyParts, tables: StudyTables) -> Finding:
    costs = []
    for row in rows.itertuples():
        costs.append(f"{_nats(row, 'transcoder')} in {row.set}, {_against_linear(row, study.gates.transcoders)}")
    beside = [
        f"{row.set}: linear maps {_nats(row, 'linear')}, mean ablation {_nats(row, 'mean_ablation')}"
        for row in rows.itertuples()
    ]
    return Finding(
        "Transcoders in the place of all MLPs at once",
        f"With all of them replaced the cross-entropy rises, in nats per token, by {'; '.join(costs)}.",
        f"{'; '.join(beside)}; the MLPs' own output costs {identity_words(rows)}",
        f"{sample_words(rows)}; {ONE_TRAINING}",
        _caution(rows, tables),
    )


def _against_linear(row, limits: TranscoderGates) -> str:
    """What the interval of the share recovered allows to say; a floor of no cost is none."""
    if not is_informative(row.ce_increase_linear, limits):
        return "where linear maps cost next to nothing as well"
    known = row.recovered_linear_low, row.recovered_linear_high
    linear = "the best linear maps cost"
    return direction(*known, f"less than {linear}", f"more than {linear}", f"not distinguishable from what {linear}")


def _nats(row, at: str) -> str:
    """`0.021 (0.018 to 0.024)`."""
    value, low, high = (getattr(row, f"ce_increase_{at}{end}") for end in ("", "_low", "_high"))
    return f"{decimals(value)} ({interval(low, high)})"


def sample_words(rows: pd.DataFrame) -> str:
    """`40 problems, 9,000 next-token targets`; both ends where sets differ."""
    problems, targets = (ends(rows[name], number) for name in ("n_spliced_problems", "n_targets"))
    return f"{problems} problems, {targets} next-token targets"


def identity_words(rows: pd.DataFrame) -> str:
    """What putting the MLPs' own output in their place costs, in words."""
    losses, agreement = rows[IDENTITY_LOSSES].abs(), rows["top1_identity"]
    if identity_is_at_fault(rows):
        worst = f"{number(float(losses.max(axis=None)))} nats, with a top-1 agreement of {number(agreement.min())}"
        return f"{worst}: it must be 0 and 1"
    return "an unknown amount (not measured)" if losses.isna().any(axis=None) else "0, as it must"


def identity_is_at_fault(rows: pd.DataFrame) -> bool:
    """Whether the MLPs' own output in their place changes anything, where that was measured."""
    losses, agreement = rows[IDENTITY_LOSSES], rows["top1_identity"]
    return bool((losses.notna() & (losses != 0)).any(axis=None) or (agreement.notna() & (agreement != 1)).any())


def _caution(rows: pd.DataFrame, tables: StudyTables) -> str:
    said = []
    if identity_is_at_fault(rows):
        said.append(IDENTITY_IS_AT_FAULT)
    choice = tables.transcoder_choice
    if choice and choice["point"] in choice["refused"]:
        said.append(f"The trained point {choice['point']} did not qualify: {choice['refused'][choice['point']]}.")
    return " ".join(said)


# ------------------------------------------------------------------------------------------------ layer by layer


def _layer_by_layer(rows: pd.DataFrame, study: StudyParts, tables: StudyTables) -> Finding:
    limits, gates = study.gates.transcoders, tables.summaries["gates"]
    verdicts = gates[gates["gate"].isin(list(LAYER_GATES))]
    told_of = [_set(name, of_set, verdicts, limits) for name, of_set in rows.groupby("set", sort=False)]
    sentence = (
        f"An MLP carries something where its mean ablation costs at least {limits.uninformative_nats:g} nats. "
        + " ".join(told_of)
    )
    n_latents = f"{ends(rows['n_latents'], number)} latents in a layer"
    control = "mean ablation and the best linear map of the same layer; uninformative layers are not judged by them"
    return Finding(
        "Transcoders layer by layer", sentence, control, f"{sample_words(rows)}, {n_latents}; {ONE_TRAINING}"
    )


def _set(name: str, of_set: pd.DataFrame, verdicts: pd.DataFrame, limits: TranscoderGates) -> str:
    """`base, seed 0: 2 of 3 layers do (0, 4); 1 of them passes. Uninformative: 1 (0.002 nats). Failing: 4 (dead).`"""
    informative = of_set[[is_informative(cost, limits) for cost in of_set["ce_increase_mean_ablation"]]]
    passing = [layer for layer, place in zip(informative["layer"], informative["place"], strict=True)
               if _passes(verdicts[verdicts["of"] == place])]  # fmt: skip
    said = f"{name}: {len(informative)} of {len(of_set)} layers do"
    if len(informative):
        layers = runs(int(layer) for layer in informative["layer"])
        said += f" ({layers}); {len(passing)} of them pass{'es' if len(passing) == 1 else ''}"
    weak = of_set.drop(informative.index)
    named = [f"{row.layer} ({_known(row.ce_increase_mean_ablation)})" for row in weak.itertuples()]
    said += f". Uninformative: {listed(named)}" if named else ""
    named = [f"{row.layer} ({failed})" for row in of_set.itertuples() if (failed := _failed(verdicts, row.place))]
    return said + (f". Failing: {listed(named)}." if named else ".")


def _passes(verdicts: pd.DataFrame) -> bool:
    """Whether a layer passes every gate; that against the linear map only where the map costs enough."""
    is_linear = (verdicts["gate"] == "transcoder_recovered_linear") & verdicts["value"].notna()
    may_be_open = is_linear & (verdicts["verdict"] != FAIL)
    return bool(len(verdicts) and ((verdicts["verdict"] == PASS) | may_be_open).all())


def _failed(verdicts: pd.DataFrame, place: str) -> str:
    """The gates that a layer fails, without their common beginning."""
    failed = verdicts[(verdicts["of"] == place) & (verdicts["verdict"] == FAIL)]
    return ", ".join(gate.removeprefix("transcoder_") for gate in failed["gate"])


def _known(nats: float) -> str:
    return "not known" if nats != nats else f"{number(nats, 2)} nats"
