RELEASE = released_repositories()


rule write_manifest:
    """What is the study made of, byte for byte?"""
    input:
        pages=rules.write_report.output,
        weights=lambda wildcards: all_files("crosscoder.safetensors") + chosen_weights(wildcards),
        # these can change without a change of the page
        graphs=[path for name in ("graph.npz", "graph.json", "graph.svg") for path in all_graph_files(name)],
    output:
        "<results>/manifest.json",
    log:
        "<logs>/write_manifest.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=60,
        gpu=0,
    params:
        study=study.study,
        config_digest=rules.write_report.params.config_digest,
        code=code_hash("reasondiff.manifest"),
    script:
        "../../scripts/write_manifest.py"


rule package_release:
    """What can others take from this study, and what must they know of it? (Only when it is asked for by name.)"""
    input:
        crosscoders=released_crosscoders(),
        transcoders=released_transcoders,
        latents=released_latents,
        graphs=released_graphs(),
        tables=collect(
            "<results>/{table}.tsv",
            table=[
                "crosscoders/counts",
                "report/quality",
                "report/gates",
                "report/transcoders",
                "report/label_summary",
            ],
        )
        + [path for path in released_graphs() if path.endswith("graphs/summary.tsv")],
        models=collect("<results>/models/{model}/model.json", model=study.models),
    output:
        [directory(folder) for folder in RELEASE],
    log:
        "<logs>/package_release.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=60,
        gpu=0,
    params:
        study=study.model_dump(mode="json", include={"study", "models", "text", "pairs", "release", "report"}),
        templates=markup_of("release"),
        code=code_hash("reasondiff.release.cards", "reasondiff.release.packaging"),
    script:
        "../../scripts/package_release.py"


rule upload_release:
    """Where on the hub is the release? (Refused unless the study says `release.upload: true`.)"""
    input:
        list(RELEASE),
    output:
        "<results>/release/uploaded.json",
    log:
        "<logs>/upload_release.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=720,
        gpu=0,
    params:
        kinds=list(RELEASE.values()),
        release=study.release.model_dump(mode="json"),
        code=code_hash("reasondiff.release.upload"),
    script:
        "../../scripts/upload_release.py"
