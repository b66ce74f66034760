use rule check_alignment as check_alignment_of_model with:
    input:
        models=["<results>/models/{model}/model.json"],
        tokens=tokens_of_transcoders,
        tokenizer=lambda wildcards: f"<results>/text/tokenizers/{TRANSCODED[wildcards.model].tokenizer}/tokenizer.json",
    output:
        "<results>/transcoders/{model}/{text}/alignment.json",
    log:
        "<logs>/check_alignment/{model}/{text}.log",
    params:
        tokenizer=lambda wildcards: TRANSCODED[wildcards.model].tokenizer,
        foreign_share=study.gates.foreign_share,
        code=code_hash("reasondiff.text.alignment", "reasondiff.models.load"),


# One rule per model: which layers it has is part of the outputs. update(): finished layers stay in place, and the
# script skips those whose fingerprint still holds.
for _model, _settings in transcoders_trained_here().items():

    rule:
        """What do the transcoders of all layers of a model learn from one pass over the text?"""
        name:
            f"train_transcoders_{_model}"
        input:
            model=f"<results>/models/{_model}/model.json",
            tokens=f"<results>/text/{_settings.text}/{_settings.tokenizer}/tokens.npz",
            alignment=f"<results>/transcoders/{_model}/{_settings.text}/alignment.json",
            starts=transcoders_to_start_from(_model),
        output:
            [
                update(f"<results>/transcoders/{_model}/{_settings.text}/{{point}}/seed{{seed}}/{_file}")
                for _layer in _settings.layers
                for _file in transcoder_files(_layer)
            ],
        log:
            f"<logs>/train_transcoders/{_model}/{{point}}.seed{{seed}}.log",
        benchmark:
            f"<logs>/benchmarks/train_transcoders/{_model}.{{point}}.seed{{seed}}.tsv"
        wildcard_constraints:
            point="|".join(study.transcoders.points),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "train_transcoders"),
            runtime=runtime(1440, "train_transcoders"),
            gpu=GPU,
        params:
            points=lambda wildcards: {wildcards.point: point_of_transcoders(wildcards.point)},
            layers=list(_settings.layers),
            seed=lambda wildcards: int(wildcards.seed),
            schedule=study.transcoders.training.model_dump(mode="json"),
            folder=subpath(output[0], ancestor=4),
            checkpoint=f"{study.results_dir}/transcoders/{_model}/{_settings.text}/checkpoints/{{point}}.seed{{seed}}.safetensors",
            training=training_of_transcoders(),
            reading=reading_of_text(_settings.text),
            code=code_hash("reasondiff.dictionaries.transcoding", "reasondiff.dictionaries.workers"),
        script:
            "../../scripts/train_transcoders.py"


for _sweep in transcoder_sweeps():

    rule:
        """What do all sweep points learn on the pilot layers, from one pass over the text?"""
        name:
            "train_transcoder_sweep"
        input:
            model=f"<results>/models/{_sweep.model}/model.json",
            tokens=f"<results>/text/{TRANSCODED[_sweep.model].text}/{TRANSCODED[_sweep.model].tokenizer}/tokens.npz",
            alignment=f"<results>/transcoders/{_sweep.model}/{TRANSCODED[_sweep.model].text}/alignment.json",
        output:
            [update(_path) for _path in sweep_files(_sweep)],
        log:
            "<logs>/train_transcoders/sweep.log",
        benchmark:
            "<logs>/benchmarks/train_transcoders/sweep.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "train_transcoder_sweep"),
            runtime=runtime(1440, "train_transcoder_sweep"),
            gpu=GPU,
        params:
            points={_point: point_of_transcoders(_point) for _point in study.transcoders.points},
            layers=list(_sweep.layers),
            seed=_sweep.seed,
            schedule={**study.transcoders.training.model_dump(mode="json"), "tokens": _sweep.tokens},
            folder=subpath(output[0], ancestor=4),
            checkpoint=f"{study.results_dir}/transcoders/{_sweep.model}/checkpoints/sweep.safetensors",
            training=training_of_transcoders(),
            reading=reading_of_text(TRANSCODED[_sweep.model].text),
            code=code_hash("reasondiff.dictionaries.transcoding", "reasondiff.dictionaries.workers"),
        script:
            "../../scripts/train_transcoders.py"

    rule:
        """What does each sweep point cost the model, layer by layer, and how sparse is it?"""
        name:
            "evaluate_transcoder_sweep"
        input:
            model=f"<results>/models/{_sweep.model}/model.json",
            tokens=f"<results>/text/{TRANSCODED[_sweep.model].text}/{TRANSCODED[_sweep.model].tokenizer}/tokens.npz",
            alignment=f"<results>/transcoders/{_sweep.model}/{TRANSCODED[_sweep.model].text}/alignment.json",
            transcoders=sweep_files(_sweep, "sae.safetensors"),
        output:
            SWEEP,
        log:
            "<logs>/evaluate_transcoder_sweep.log",
        benchmark:
            "<logs>/benchmarks/evaluate_transcoder_sweep/all.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "evaluate_transcoder_sweep"),
            runtime=runtime(240, "evaluate_transcoder_sweep"),
            gpu=GPU,
        params:
            points={_point: point_of_transcoders(_point) for _point in study.transcoders.points},
            layers=list(_sweep.layers),
            seed=_sweep.seed,
            folder=lambda wildcards, input: str(Path(input.transcoders[0]).parents[3]),
            evaluation=study.transcoders.evaluation.model_dump(mode="json"),
            tokens=_sweep.evaluation_tokens,
            uninformative_nats=study.gates.transcoders.uninformative_nats,
            reading=reading_of_text(TRANSCODED[_sweep.model].text),
            code=code_hash("reasondiff.dictionaries.pilot", "reasondiff.models.pairing"),
        script:
            "../../scripts/evaluate_transcoder_sweep.py"


# The one checkpoint: what is trained on all layers is known when the sweep is judged. Its file is no input of what
# follows, only its content chooses the paths: the same choice again runs nothing again.
checkpoint choose_transcoder:
    """Which sweep point is trained on all layers of all models, and why?"""
    input:
        sweep=SWEEP,
    output:
        "<results>/transcoders/choice.json",
    log:
        "<logs>/choose_transcoder.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(15),
        gpu=0,
    params:
        gates=study.gates.transcoders.model_dump(mode="json"),
        named=study.transcoders.point if study.transcoders else None,
        unqualified=study.transcoders.unqualified if study.transcoders else "stop",
        code=code_hash("reasondiff.dictionaries.choice"),
    script:
        "../../scripts/choose_transcoder.py"


for _model, _settings in transcoders_from_elsewhere().items():

    rule:
        """Are transcoders from elsewhere of this model's MLPs, and do they imitate them?"""
        name:
            f"import_transcoders_{_model}"
        input:
            model=f"<results>/models/{_model}/model.json",
            tokens=f"<results>/text/{_settings.text}/{_settings.tokenizer}/tokens.npz",
            alignment=f"<results>/transcoders/{_model}/{_settings.text}/alignment.json",
        output:
            [
                f"<results>/transcoders/{_model}/{_settings.text}/{READY}/seed0/{_file}"
                for _layer in _settings.layers
                for _file in transcoder_files(_layer)[:2]
            ],
        log:
            f"<logs>/import_transcoders/{_model}.log",
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "import_transcoders"),
            runtime=runtime(240, "import_transcoders"),
            gpu=GPU,
        params:
            ready=_settings.ready.model_dump(mode="json"),
            without_commit=without_commit("transcoders", "models", _model, "ready"),
            layers=list(_settings.layers),
            folder=subpath(output[0], ancestor=2),
            evaluation=study.transcoders.evaluation.model_dump(mode="json"),
            reading=reading_of_text(_settings.text),
            code=code_hash(
                "reasondiff.dictionaries.ready", "reasondiff.dictionaries.admission", "reasondiff.models.pairing"
            ),
        script:
            "../../scripts/import_transcoders.py"


rule evaluate_transcoders:
    """What does the model lose when transcoders take the place of its MLPs, one layer at a time and all at once?"""
    input:
        model="<results>/models/{model}/model.json",
        tokens=tokens_of_transcoders,
        alignment="<results>/transcoders/{model}/{text}/alignment.json",
        transcoders=transcoders_of_set,
    output:
        "<results>/transcoders/{model}/{text}/{point}/seed{seed}/evaluation.tsv",
    log:
        "<logs>/evaluate_transcoders/{model}/{text}/{point}.seed{seed}.log",
    benchmark:
        "<logs>/benchmarks/evaluate_transcoders/{model}.{text}.{point}.seed{seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000, "evaluate_transcoders"),
        runtime=runtime(240, "evaluate_transcoders"),
        gpu=GPU,
    params:
        settings=study.transcoders.evaluation.model_dump(mode="json") if study.transcoders else None,
        reading=lambda wildcards: reading_of_text(wildcards.text),
        code=code_hash("reasondiff.dictionaries.faithfulness", "reasondiff.models.pairing"),
    script:
        "../../scripts/evaluate_transcoders.py"


rule compare_answers:
    """What does the model answer with transcoders in the place of its MLPs, beside its own answers?"""
    input:
        model="<results>/models/{model}/model.json",
        problems="<results>/text/{text}/problems.parquet",
        transcoders=transcoders_of_set,
    output:
        accuracy="<results>/transcoders/{model}/{text}/{point}/seed{seed}/accuracy.tsv",
        responses="<results>/transcoders/{model}/{text}/{point}/seed{seed}/responses.parquet",
    log:
        "<logs>/compare_answers/{model}/{text}/{point}.seed{seed}.log",
    benchmark:
        "<logs>/benchmarks/compare_answers/{model}.{text}.{point}.seed{seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "compare_answers"),
        runtime=runtime(240, "compare_answers"),
        gpu=GPU,
    params:
        settings=settings("accuracy"),
        problems=study.transcoders.evaluation.problems if study.transcoders else 0,
        elicitations=lambda wildcards: list(study.models[wildcards.model].elicitations),
        first_positions=study.stream.first_positions,
        device=study.device,
        dtype=study.dtype,
        code=code_hash("reasondiff.models.imitation", "reasondiff.dictionaries.transcoder"),
    script:
        "../../scripts/compare_answers.py"
