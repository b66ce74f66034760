# Attribution graphs: prompts, the responses to them, the tokens that are explained, and one graph for each.
TRACED = traced_models()
TARGETS = "<results>/prompts/targets.parquet" if TRACED else []


for _prompts in [study.prompts] if study.prompts else []:

    rule:
        """How do the models answer the benchmark prompts, and how often rightly?"""
        name:
            "answer_prompts"
        input:
            models=collect("<results>/models/{model}/model.json", model=_prompts.elicitations),
            prompts=file_of_prompts(),
        output:
            responses="<results>/prompts/responses.parquet",
            accuracy="<results>/prompts/accuracy.tsv",
        log:
            "<logs>/answer_prompts.log",
        benchmark:
            "<logs>/benchmarks/answer_prompts/all.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "answer_prompts"),
            runtime=runtime(480, "answer_prompts"),
            gpu=GPU,
        params:
            settings=_prompts.model_dump(mode="json"),
            device=study.device,
            dtype=study.dtype,
            code=code_hash("reasondiff.models.answering", "reasondiff.text.prompts"),
        script:
            "../../scripts/answer_prompts.py"

    rule:
        """Which tokens of the responses are explained?"""
        name:
            "choose_targets"
        input:
            responses="<results>/prompts/responses.parquet",
            models=collect("<results>/models/{model}/model.json", model=_prompts.elicitations),
        output:
            "<results>/prompts/targets.parquet",
        log:
            "<logs>/choose_targets.log",
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "choose_targets"),
            runtime=runtime(120, "choose_targets"),
            gpu=GPU,
        params:
            settings=_prompts.model_dump(mode="json"),
            device=study.device,
            dtype=study.dtype,
            code=code_hash("reasondiff.graphs.targets"),
        script:
            "../../scripts/choose_targets.py"


# One rule per model and lot of prompts: importing torch and TransformerLens takes longer than a small graph. update():
# finished graphs stay in place, and the script skips those whose fingerprint still holds.
for _model in TRACED:
    for _number, _lot in enumerate(prompts_by_job()):

        rule:
            """Which latents, through which of one another, make a model say a token of its response?"""
            name:
                f"trace_graphs_{_model}_{_number}"
            input:
                model=f"<results>/models/{_model}/model.json",
                transcoders=set_of_graphs(_model),
                targets=TARGETS,
            output:
                graphs=[update(_path) for _path in graph_files(_model, "{seed}", prompts=_lot)],
                interventions=[
                    update(_path) for _path in graph_files(_model, "{seed}", "interventions.tsv", prompts=_lot)
                ],
                costs=update(f"<results>/graphs/{_model}/seed{{seed}}/costs/{_number}.tsv"),
            log:
                f"<logs>/trace_graphs/{_model}.seed{{seed}}.{_number}.log",
            benchmark:
                f"<logs>/benchmarks/trace_graphs/{_model}.seed{{seed}}.{_number}.tsv"
            conda:
                "../../envs/circuits.yaml"
            threads: 1
            resources:
                mem_mb=memory(3000, "trace_graphs"),
                runtime=runtime(1440, "trace_graphs"),
                gpu=GPU,
            params:
                name=_model,
                seed=lambda wildcards: int(wildcards.seed),
                traced=[[_prompt, _target] for _prompt in _lot for _target in TRACED[_model]],
                settings=study.graphs.model_dump(mode="json"),
                first_positions=study.stream.first_positions,
                device=study.device,
                failed_before=failed_graphs(_model, _number),
                code=code_hash("reasondiff.graphs.tracing", "reasondiff.graphs.interventions"),
            message:
                f"Graphs of {_model} with seed {{wildcards.seed}}: {len(_lot)} prompts from {_lot[0]} to {_lot[-1]}"
            script:
                "../../scripts/trace_graphs.py"


rule summarise_graphs:
    """What do the graphs hold, which of them explain, and which latents do they use again and again?"""
    input:
        graphs=all_graph_files(),
    output:
        summary="<results>/graphs/summary.tsv",
        latents="<results>/graphs/latents.tsv",
    log:
        "<logs>/summarise_graphs.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "summarise_graphs"),
        runtime=runtime(60, "summarise_graphs"),
        gpu=0,
    params:
        settings=study.graphs.model_dump(mode="json") if study.graphs else None,
        gates=study.gates.graphs.model_dump(mode="json"),
        code=code_hash("reasondiff.graphs.summary", "reasondiff.graphs.pruning"),
    message:
        "Scores of all graphs"
    script:
        "../../scripts/summarise_graphs.py"


rule judge_interventions:
    """Does the model change as its graphs predict when a latent is ablated or doubled?"""
    input:
        interventions=all_graph_files("interventions.tsv"),
    output:
        "<results>/graphs/interventions.tsv",
    log:
        "<logs>/judge_interventions.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "judge_interventions"),
        runtime=runtime(60, "judge_interventions"),
        gpu=0,
    params:
        settings=study.graphs.interventions.model_dump(mode="json") if study.graphs else None,
        code=code_hash("reasondiff.graphs.agreement"),
    message:
        "Interventions on all graphs, against what the graphs predict"
    script:
        "../../scripts/judge_interventions.py"


# Only where the config names a crosscoder to link to.
for _links in [study.graphs.links] if study.graphs and study.graphs.links else []:
    for _model in TRACED:

        rule:
            """How many latents of the graphs fire with a latent of the crosscoder at their layer?"""
            name:
                f"link_latents_{_model}"
            input:
                model=f"<results>/models/{_model}/model.json",
                models=[f"<results>/models/{_name}/model.json" for _name in study.pairs[_links.pair].models],
                tokens=tokens_file(_links.pair, study.pairs[_links.pair].texts[0]),
                alignment=alignment_file(_links.pair, study.pairs[_links.pair].texts[0]),
                transcoders=set_of_graphs(_model),
                crosscoders=linked_crosscoders(_links, "crosscoder.safetensors"),
                latents=linked_crosscoders(_links, "latents.tsv"),
                in_graphs="<results>/graphs/latents.tsv",
            output:
                f"<results>/graphs/{_model}/seed{{seed}}/links.tsv",
            log:
                f"<logs>/link_latents/{_model}.seed{{seed}}.log",
            benchmark:
                f"<logs>/benchmarks/link_latents/{_model}.seed{{seed}}.tsv"
            conda:
                "../../envs/torch.yaml"
            threads: 1
            resources:
                mem_mb=memory(3000, "link_latents"),
                runtime=runtime(240, "link_latents"),
                gpu=GPU,
            params:
                model=_model,
                seed=lambda wildcards: int(wildcards.seed),
                settings=_links.model_dump(mode="json"),
                reading=reading_of_text(study.pairs[_links.pair].texts[0]),
                code=code_hash("reasondiff.graphs.links", "reasondiff.graphs.codes", "reasondiff.models.pairing"),
            script:
                "../../scripts/link_latents.py"


for _model in TRACED:

    rule:
        """What do the graphs of a model look like, in the format that other tools read and as figures?"""
        name:
            f"export_graphs_{_model}"
        input:
            graphs=graph_files(_model, "{seed}"),
            labels=labels_of_subject(_model),
        output:
            json=graph_files(_model, "{seed}", "graph.json"),
            svg=graph_files(_model, "{seed}", "graph.svg"),
        log:
            f"<logs>/export_graphs/{_model}.seed{{seed}}.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=memory(2000, "export_graphs"),
            runtime=runtime(60, "export_graphs"),
            gpu=0,
        params:
            settings=study.graphs.model_dump(mode="json"),
            code=code_hash("reasondiff.graphs.exchange", "reasondiff.graphs.drawing", "reasondiff.graphs.pruning"),
        message:
            f"JSON and figures of the graphs of {_model} with seed {{wildcards.seed}}"
        script:
            "../../scripts/export_graphs.py"


rule write_viewer:
    """Where can one walk through the graphs, node by node?"""
    input:
        graphs=lambda wildcards: all_graph_files("graph.json"),
        summary="<results>/graphs/summary.tsv",
        labels=labels_of_graphs("labels.json"),
        examples=labels_of_graphs("examples.parquet"),
    output:
        page="<results>/report/graphs/viewer.html",
        data=directory("<results>/report/graphs/data"),
    log:
        "<logs>/write_viewer.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
        gpu=0,
    params:
        settings=study.graphs.model_dump(mode="json") if study.graphs else None,
        markup=markup_of("graphs"),
        code=code_hash("reasondiff.graphs.viewer", "reasondiff.graphs.exchange", "reasondiff.latents.example_table"),
    message:
        "The page to walk through all graphs"
    script:
        "../../scripts/write_viewer.py"
