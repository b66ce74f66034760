"""What the stages wrote in; counts of latents, quality of dictionaries, quality gates and paired changes out."""

from reasondiff.job import job
from reasondiff.latents.counts import against_nulls, count_latents
from reasondiff.report.gates import judge_gates
from reasondiff.report.inputs import StudyParts, gather
from reasondiff.report.label_tables import label_comparison, label_summary
from reasondiff.report.tables import accuracy_changes, fidelity, quality
from reasondiff.report.transcoder_tables import answer_changes, faithfulness
from reasondiff.store import write_table

with job(snakemake) as log:
    study = StudyParts.model_validate(snakemake.params.study)
    tables = gather(snakemake.input)

    dictionaries = quality(tables.evaluations, tables.baselines)
    transcoders = faithfulness(tables.transcoders)
    draws = {"resamples": snakemake.params.resamples, "seed": 0, "min_problems": study.gates.min_problems}
    label_draws = {"resamples": study.labels.scores.bootstrap, "seed": study.labels.scores.seed}
    summaries = {
        "counts": count_latents(tables.latents, study.pairs),
        "nulls": against_nulls(tables.latents, study.pairs),
        "fidelity": fidelity(tables.evaluations, tables.baselines, study.pairs),
        "quality": dictionaries,
        "transcoders": transcoders,
        "gates": judge_gates(
            dictionaries,
            tables.checks,
            tables.alignment,
            transcoders,
            study.pairs,
            study.gates,
            study.report.scale,
        ),
        "accuracy_changes": accuracy_changes(tables.responses, study.pairs, **draws),
        "answer_changes": answer_changes(tables.transcoder_answers, **draws),
        "label_summary": label_summary(tables.label_scores, tables.transcoder_label_scores, **label_draws),
        "label_comparison": label_comparison(tables.label_scores, tables.latents, tables.firing, **label_draws),
    }
    log.info("gates: %s", summaries["gates"]["verdict"].value_counts().to_dict())

    card = {
        "pairs": snakemake.params.study["pairs"],
        "gates": snakemake.params.study["gates"],
        "code": snakemake.params.code,
    }
    for name, table in summaries.items():
        write_table(snakemake.output[name], table, card)
