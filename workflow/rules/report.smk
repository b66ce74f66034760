import json

from reasondiff.report.circuit_tables import figures_of_circuits
from reasondiff.report.sites import figures_of
from reasondiff.store import digest

COUPLED = [site for site, banks in sites().items() if listing.points(study, banks, coupled=True)]
FIGURES = figures_of(study.pairs, sites(), COUPLED, study.transcoders, has_concepts=bool(concept_tables()))
FIGURES |= figures_of_circuits(study.graphs is not None, study.motifs is not None, study.comparisons is not None)
BASELINES = [f"<results>/crosscoders/{site}/baselines.tsv" for site in sites()]
ALIGNMENT = [alignment_file(pair, text) for pair, text in pair_texts()]
DIVERGENCE = [f"<results>/crosscoders/{pair}/{text}/divergence.tsv" for pair, text in pair_texts()]
TOKENS = collect("<results>/text/{text}/{tokenizer}", text=study.text, tokenizer=study.tokenizers)
# the sections of the study that its page speaks of, as plain data
REPORT_PARTS = {
    "study",
    "split",
    "tokenizers",
    "models",
    "text",
    "pairs",
    "banks",
    "latents",
    "evidence",
    "gates",
    "report",
}
CIRCUITS = {"prompts", "graphs", "motifs", "comparisons"}
REPORTED = study.model_dump(mode="json", include=REPORT_PARTS | CIRCUITS | {"transcoders", "labels", "concepts"})
GRAPH_TABLES = {
    "graph_summary": "<results>/graphs/summary.tsv" if study.graphs else [],
    "graph_interventions": "<results>/graphs/interventions.tsv" if study.graphs else [],
    "motif_profiles": "<results>/motifs/profiles.tsv" if study.comparisons else [],
    "comparisons": [f"<results>/comparisons/{name}.tsv" for name in (COMPARISONS if study.comparisons else [])],
}


rule summarise_study:
    """How many latents belong to one model, more than in the control, and do the instruments pass their gates?"""
    input:
        checks=collect("<results>/text/{text}/tokenizer_check.tsv", text=study.text),
        alignment=ALIGNMENT,
        responses=collect("<results>/models/{model}/responses.parquet", model=ANSWERING),
        evaluations=all_files("evaluation.tsv"),
        baselines=BASELINES,
        latents=all_files("latents.tsv", coupled=True),
        transcoders=chosen_files("evaluation.tsv"),
        transcoder_answers=chosen_files("responses.parquet", first_seed=True),
        label_scores=[f"{folder}/label_scores.tsv" for folder in labelled_crosscoders()],
        transcoder_label_scores=chosen_files("label_scores.tsv", first_seed=True),
        firing=[f"{folder}/firing.parquet" for folder in labelled_crosscoders()],
    output:
        counts="<results>/crosscoders/counts.tsv",
        nulls="<results>/crosscoders/nulls.tsv",
        fidelity="<results>/report/fidelity.tsv",
        quality="<results>/report/quality.tsv",
        gates="<results>/report/gates.tsv",
        accuracy_changes="<results>/report/accuracy_changes.tsv",
        transcoders="<results>/report/transcoders.tsv",
        answer_changes="<results>/report/answer_changes.tsv",
        label_summary="<results>/report/label_summary.tsv",
        label_comparison="<results>/report/label_comparison.tsv",
    log:
        "<logs>/summarise_study.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(30),
        gpu=0,
    params:
        study=REPORTED,
        resamples=study.evaluation.bootstrap,
        code=code_hash(
            "reasondiff.report.tables",
            "reasondiff.report.gates",
            "reasondiff.report.inputs",
            "reasondiff.report.transcoder_tables",
            "reasondiff.report.label_tables",
        ),
    script:
        "../../scripts/summarise_study.py"


rule draw_figures:
    """What do the distances, the dictionaries and the latents look like?"""
    input:
        **GRAPH_TABLES,
        histograms=collect("{tokens}/histogram.tsv", tokens=TOKENS),
        accuracy=collect("<results>/models/{model}/accuracy.tsv", model=ANSWERING),
        divergence=DIVERGENCE,
        baselines=BASELINES,
        latents=all_files("latents.tsv", coupled=True),
        transcoder_sweep=SWEEP,
        transcoder_choice=choice_of_transcoders,
        concepts=concept_tables(),
        summaries=collect(
            "<results>/{table}.tsv",
            table=["crosscoders/counts", "report/fidelity", "report/transcoders", "report/label_summary"],
        ),
    output:
        svg=[
            report(
                f"<results>/report/figures/{name}.svg",
                caption=f"../report/{kind}.rst",
                category="Figures",
                labels={"figure": kind.replace("_", " "), "of": ", ".join(Path(site).parts) or "the study"},
            )
            for name, (kind, site) in FIGURES.items()
        ],
        png=[f"<results>/report/figures/{name}.png" for name in FIGURES],
    log:
        "<logs>/draw_figures.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(30),
        gpu=0,
    params:
        study=REPORTED,
        figures=FIGURES,
        code=code_hash("reasondiff.report.all_figures", "reasondiff.report.drawing"),
    script:
        "../../scripts/draw_figures.py"


rule write_report:
    """What did training change? One page, readable without network."""
    input:
        **GRAPH_TABLES,
        statistics=collect("{tokens}/statistics.tsv", tokens=TOKENS),
        parts=collect("{tokens}/parts.tsv", tokens=TOKENS),
        checks=rules.summarise_study.input.checks,
        tokenizers=collect("<results>/text/tokenizers/{tokenizer}/tokenizer.json", tokenizer=study.tokenizers),
        models=collect("<results>/models/{model}/model.json", model=study.models),
        histories=collect("<results>/models/{model}/training.jsonl", model=TRAINED),
        accuracy=collect("<results>/models/{model}/accuracy.tsv", model=ANSWERING),
        responses=collect("<results>/models/{model}/responses.parquet", model=ANSWERING),
        alignment=ALIGNMENT,
        divergence=DIVERGENCE,
        evaluations=all_files("evaluation.tsv"),
        latents=all_files("latents.tsv", coupled=True),
        transcoders=chosen_files("evaluation.tsv"),
        transcoder_answers=chosen_files("responses.parquet", first_seed=True),
        transcoder_histories=transcoder_histories,
        transcoder_sweep=SWEEP,
        transcoder_choice=choice_of_transcoders,
        label_files=labelled_files("labels.json"),
        label_scores=rules.summarise_study.input.label_scores,
        transcoder_label_scores=chosen_files("label_scores.tsv", first_seed=True),
        concepts=concept_tables(),
        transcoder_concepts=transcoder_concept_tables,
        set_effects=effect_tables(),
        prompt_accuracy="<results>/prompts/accuracy.tsv" if study.prompts else [],
        graph_latents="<results>/graphs/latents.tsv" if study.graphs else [],
        graph_costs=graph_costs(),
        split=SPLIT,
        viewer="<results>/report/graphs/viewer.html" if study.graphs else [],
        pages_labels=labelled_files("labels.json"),
        pages_examples=labelled_files("examples.parquet"),
        pages_firing=labelled_files("firing.parquet"),
        pages_logits=labelled_files("logits.parquet"),
        summaries=rules.summarise_study.output,
        svgs=rules.draw_figures.output.svg,
    output:
        report("<results>/report.html", caption="../report/page.rst", category="The page", labels={"page": "the study"}),
        pages=directory("<results>/report/latents"),
    log:
        "<logs>/write_report.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(30),
        gpu=0,
    params:
        study=REPORTED,
        markup=markup_of("report"),
        config_digest=digest(json.dumps(study.model_dump(mode="json"), sort_keys=True)),
        code=code_hash("reasondiff.report.page", "reasondiff.report.inputs", "reasondiff.report.latent_pages"),
    script:
        "../../scripts/write_report.py"
