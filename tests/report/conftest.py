"""A study small enough to add up by hand: two models and a control, one dictionary each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `made_up`

import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import yaml  # noqa: E402
from made_up import accuracies, alignment, baselines, divergence, evaluation, latents, responses  # noqa: E402
from made_up_transcoders import CHOICE, answers, sweep  # noqa: E402
from made_up_transcoders import evaluation as transcoder_evaluation  # noqa: E402

from reasondiff.latents.counts import against_nulls, count_latents  # noqa: E402
from reasondiff.report import sites  # noqa: E402
from reasondiff.report.gates import judge_gates  # noqa: E402
from reasondiff.report.inputs import FOLDERS, StudyParts, StudyTables  # noqa: E402
from reasondiff.report.label_tables import label_comparison, label_summary  # noqa: E402
from reasondiff.report.tables import accuracy_changes, fidelity, quality  # noqa: E402
from reasondiff.report.transcoder_tables import answer_changes, faithfulness  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ("responses", "checks", "accuracy", "divergence", "histograms", "statistics")
LABELLED = ("label_scores", "firing", "concepts", "transcoder_label_scores", "transcoder_concepts")
KEY = "crosscoders/{}/traces/layer3/btk24/seed0/x.tsv"
SET = "transcoders/{}/traces/x4k8/seed{}/x.tsv"


@pytest.fixture(scope="session")
def study() -> StudyParts:
    """The default study's own sections."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return StudyParts.model_validate({name: config[name] for name in StudyParts.model_fields})


@pytest.fixture(scope="session")
def make_tables(study):
    """`make_tables(latents={pair: table}, transcoders={(model, seed): table}, ...)`: what the stages of a study would
    have written; the rest is empty."""

    def make(study=study, **given) -> StudyTables:
        kinds = {kind: sites.joined({}, folder) for kind, folder in FOLDERS.items()}
        for kind in ("latents", "evaluations"):
            found = {KEY.format(pair): table for pair, table in given.get(kind, {}).items()}
            kinds[kind] = sites.joined(found, sites.DICTIONARY)
        found = {f"crosscoders/{pair}/traces/layer3/b.tsv": table for pair, table in given.get("baselines", {}).items()}
        kinds["baselines"] = sites.joined(found, sites.SITE)
        kinds |= {kind: given[kind] for kind in GIVEN if kind in given}
        for kind in ("transcoders", "transcoder_answers"):
            found = {SET.format(*of_set): table for of_set, table in given.get(kind, {}).items()}
            kinds[kind] = sites.joined(found, sites.TRANSCODER_SET)
        for kind in LABELLED:  # {folder: table}
            found = {f"{folder}/x.tsv": table for folder, table in given.get(kind, {}).items()}
            kinds[kind] = sites.joined(found, FOLDERS[kind])
        kinds |= given.get("circuits", {})
        if "sweep" in given:
            kinds["transcoder_sweep"] = given["sweep"].assign(model="distill", text="traces")
        alignment = given.get("alignment", [])
        faithful = faithfulness(kinds["transcoders"])
        best = quality(kinds["evaluations"], kinds["baselines"])
        summaries = {
            "counts": count_latents(kinds["latents"], study.pairs),
            "nulls": against_nulls(kinds["latents"], study.pairs),
            "fidelity": fidelity(kinds["evaluations"], kinds["baselines"], study.pairs),
            "quality": best,
            "gates": judge_gates(best, kinds["checks"], alignment, faithful, study.pairs, study.gates, "tiny"),
            "transcoders": faithful,
            "accuracy_changes": accuracy_changes(kinds["responses"], study.pairs, 6, 200, 0),
            "answer_changes": answer_changes(kinds["transcoder_answers"], 200, 0, 6),
        }
        scores, others = kinds["label_scores"], kinds["transcoder_label_scores"]
        summaries["label_summary"] = label_summary(scores, others, 200, 0)
        summaries["label_comparison"] = label_comparison(scores, kinds["latents"], kinds["firing"], 200, 0)
        said = {"transcoder_choice": given.get("choice"), "steps": given.get("steps", {})}
        labels = [{**found, **sites.dictionary_of(f"{at}/x")} for at, found in given.get("labels", {}).items()]
        said |= {"alignment": alignment, "labels": labels, "models": {}, "cards": {}}
        return StudyTables(**kinds, **said, summaries=summaries)

    return make


@pytest.fixture(scope="session")
def whole(make_tables):
    """An effect pair with 30 of 100 exclusive latents beside a control with 1 of 100."""
    text = {"text": "traces", "tokenizer": "tiny"}
    lengths = {"total_tokens": 63, "min": 1, "max": 20, "mean": 9.0, "sd": 4.0}
    lengths |= {"share_over_3000": 0.0, "share_under_1024": 1.0}
    solved = [responses("distill", [True, False] * 10), responses("rl", [True] * 20)]
    models = {"base-distill": ["base", "distill"], "base-base_continued": ["base", "base_continued"]}
    return make_tables(
        latents={"base-distill": latents(30, 70, 5), "base-base_continued": latents(1, 99)},
        evaluations={pair: evaluation(names) for pair, names in models.items()},
        baselines={pair: baselines(names) for pair, names in models.items()},
        responses=pd.concat(solved, ignore_index=True),
        accuracy=pd.concat(
            [accuracies("base", "solution", 0.6), accuracies("distill", "think", 0.8)], ignore_index=True
        ),
        divergence=pd.DataFrame([divergence(pair, names[1], 0.5) for pair, names in models.items()]),
        alignment=[alignment("base-distill")],
        histograms=pd.DataFrame({"bin_low": [0, 10], "bin_high": [10, 20], "documents": [3, 4]}).assign(**text),
        statistics=pd.DataFrame([{"what": "documents", "documents": 7, "median": 9.0, **text, **lengths}]),
    )


@pytest.fixture(scope="session")
def transcoded(make_tables):
    """Two seeds of base and one set of distill, whose layer 1 carries nothing, with sweep, choice and answers."""
    weak = {"mean_ablation": 0.004, "zero_ablation": 0.005, "linear": 0.001, "transcoder": -0.0004}
    table = transcoder_evaluation({0: {}, 1: weak, 2: {"transcoder": 0.12}})
    return make_tables(
        transcoders={("base", 0): table, ("base", 1): table, ("distill", 0): table},
        transcoder_answers={("distill", 0): answers("distill", [True] * 10, [True] * 6 + [False] * 4)},
        sweep=sweep(),
        choice=CHOICE,
    )
