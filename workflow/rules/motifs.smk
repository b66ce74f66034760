# Small patterns of the graphs beside null models, and the four comparisons.
from reasondiff.report.circuit_tables import COMPARISONS

# looked for at once: a folder without any stops the run before it starts
PUBLISHED = {name: published_graphs(name) for name in (study.motifs.sources if study.motifs else ())}
SPLIT = "<results>/comparisons/split.tsv" if study.comparisons and study.prompts.base else []


rule count_motifs:
    """Which patterns of three nodes are there more often than in a null model's graphs?"""
    input:
        graphs=lambda wildcards: graph_files(wildcards.model, wildcards.seed),
    output:
        motifs="<results>/motifs/{model}/seed{seed}/motifs.parquet",
    log:
        "<logs>/count_motifs/{model}.seed{seed}.log",
    benchmark:
        "<logs>/benchmarks/count_motifs/{model}.seed{seed}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "count_motifs"),
        runtime=runtime(480, "count_motifs"),
        gpu=0,
    params:
        source=lambda wildcards: f"{wildcards.model}/seed{wildcards.seed}",
        folder=None,
        settings=study.motifs.model_dump(mode="json") if study.motifs else None,
        code=code_hash("reasondiff.motifs.counting", "reasondiff.graphs.sources"),
    message:
        "Motifs of {params.source} beside null models"
    script:
        "../../scripts/count_motifs.py"


use rule count_motifs as count_published_motifs with:
    input:
        graphs=lambda wildcards: PUBLISHED[wildcards.name],
    output:
        motifs="<results>/motifs/published/{name}/motifs.parquet",
    log:
        "<logs>/count_motifs/published.{name}.log",
    benchmark:
        "<logs>/benchmarks/count_motifs/published.{name}.tsv"
    params:
        source=lambda wildcards: f"published/{wildcards.name}",
        folder=lambda wildcards: study.motifs.sources[wildcards.name].folder,
        settings=study.motifs.model_dump(mode="json") if study.motifs else None,
        code=code_hash("reasondiff.motifs.counting", "reasondiff.graphs.sources"),


# Where the config asks for comparisons.
for _comparisons in [study.comparisons] if study.comparisons else []:

    rule:
        """What differs between graphs of two models, two phases, two outcomes, beyond what the null gives?"""
        name:
            "compare_graphs"
        input:
            summary="<results>/graphs/summary.tsv",
            motifs=[f"<results>/motifs/{_source}/motifs.parquet" for _source in motif_sources()],
            responses="<results>/prompts/responses.parquet",
            graphs=all_graph_files(),
            links=link_tables(),
        output:
            comparisons=[f"<results>/comparisons/{_name}.tsv" for _name in COMPARISONS],
            profiles="<results>/motifs/profiles.tsv",
        log:
            "<logs>/compare_graphs.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=memory(2000, "compare_graphs"),
            runtime=runtime(120, "compare_graphs"),
            gpu=0,
        params:
            settings=_comparisons.model_dump(mode="json"),
            prompts=study.prompts.model_dump(mode="json"),
            graphs=study.graphs.model_dump(mode="json"),
            gates=study.gates.graphs.model_dump(mode="json"),
            threshold=list(study.motifs.thresholds[0]),
            published=study.motifs.sources[_comparisons.published].folder if _comparisons.published else None,
            code=code_hash(
                "reasondiff.motifs.comparison",
                "reasondiff.motifs.profiles",
                "reasondiff.motifs.measures",
                "reasondiff.graphs.sources",
            ),
        message:
            "The four comparisons of graphs"
        script:
            "../../scripts/compare_graphs.py"


# A model of its own to compare with: the base.
for _base in [study.prompts.base] if study.comparisons and study.prompts.base else []:

    rule:
        """Do two models differ in which latents they use, or in how those are wired, and more than two seeds do?"""
        name:
            "split_changes"
        input:
            reasoning_graphs=forced_graphs(study.prompts.reasoning, 0),
            reasoning_transcoders=set_of_seed(study.prompts.reasoning, 0),
            base_graphs=forced_graphs(_base, 0),
            base_transcoders=set_of_seed(_base, 0),
            other_seed_graphs=forced_graphs(_base, 1),
            other_seed_transcoders=set_of_seed(_base, 1),
        output:
            "<results>/comparisons/split.tsv",
        log:
            "<logs>/split_changes.log",
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "split_changes"),
            runtime=runtime(120, "split_changes"),
            gpu=GPU,
        params:
            subjects=compared_subjects(study.prompts.reasoning, _base),
            device=study.device,
            settings=study.comparisons.model_dump(mode="json"),
            code=code_hash("reasondiff.graphs.split"),
        message:
            "Usage and wiring: what changes between graphs"
        script:
            "../../scripts/split_changes.py"
