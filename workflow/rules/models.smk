rule train_model:
    """What does a stage of the tiny chain make of its parent?"""
    input:
        tokenizer=lambda wildcards: f"<results>/text/tokenizers/{tokenizer_of_model(wildcards.model)}/tokenizer.json",
        parent=lambda wildcards: [
            f"<results>/models/{parent}/model.json"
            for parent in [getattr(study.models[wildcards.model], "parent", None)]
            if parent
        ],
    output:
        model="<results>/models/{model}/model.json",
        weights="<results>/models/{model}/model.safetensors",
        config="<results>/models/{model}/config.json",
        tokenizer="<results>/models/{model}/tokenizer.json",
        history="<results>/models/{model}/training.jsonl",
    log:
        "<logs>/train_model/{model}.log",
    benchmark:
        "<logs>/benchmarks/train_model/{model}.tsv"
    wildcard_constraints:
        model="|".join(TRAINED) or "none",
    priority: 10
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "train_model"),
        runtime=runtime(60, "train_model"),
        gpu=0,
    params:
        settings=settings("models", "model"),
        split=settings("split"),
        code=code_hash("reasondiff.models.stages", "reasondiff.text.sources"),
    script:
        "../../scripts/train_model.py"


rule locate_model:
    """Where is a ready model (local or hub), and how large is it?"""
    output:
        model="<results>/models/{model}/model.json",
    log:
        "<logs>/locate_model/{model}.log",
    wildcard_constraints:
        model="|".join(LOCATED) or "none",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "locate_model"),
        runtime=runtime(240, "locate_model"),
        gpu=0,
    params:
        settings=settings("models", "model"),
        without_commit=lambda wildcards: without_commit("models", wildcards.model),
        code=code_hash("reasondiff.models.load"),
    script:
        "../../scripts/locate_model.py"


rule measure_accuracy:
    """How many held-out problems does a model solve, by elicitation and decoding?"""
    input:
        model="<results>/models/{model}/model.json",
        problems=collect("<results>/text/{text}/problems.parquet", text=study.text),
    output:
        accuracy="<results>/models/{model}/accuracy.tsv",
        responses="<results>/models/{model}/responses.parquet",
    log:
        "<logs>/measure_accuracy/{model}.log",
    benchmark:
        "<logs>/benchmarks/measure_accuracy/{model}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "measure_accuracy"),
        runtime=runtime(240, "measure_accuracy"),
        gpu=GPU,
    params:
        settings=settings("accuracy"),
        elicitations=lambda wildcards: list(study.models[wildcards.model].elicitations),
        device=study.device,
        dtype=study.dtype,
        code=code_hash("reasondiff.models.accuracy"),
    script:
        "../../scripts/measure_accuracy.py"


rule check_tokenizers:
    """Does each model read the study's text well under each tokenizer? (nats per byte, in fp32 and bf16)"""
    input:
        models=collect("<results>/models/{model}/model.json", model=study.models),
        tokens=collect("<results>/text/{{text}}/{tokenizer}/tokens.npz", tokenizer=study.tokenizers),
        tokenizers=collect("<results>/text/tokenizers/{tokenizer}/tokenizer.json", tokenizer=study.tokenizers),
    output:
        "<results>/text/{text}/tokenizer_check.tsv",
    log:
        "<logs>/check_tokenizers/{text}.log",
    benchmark:
        "<logs>/benchmarks/check_tokenizers/{text}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000, "check_tokenizers"),
        runtime=runtime(120, "check_tokenizers"),
        gpu=GPU,
    params:
        settings=settings("tokenizer_check"),
        stream=settings("stream"),
        context=lambda wildcards: study.text[wildcards.text].context,
        device=study.device,
        code=code_hash("reasondiff.models.reading"),
    script:
        "../../scripts/check_tokenizers.py"
