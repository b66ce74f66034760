rule prepare_text:
    """Which documents does the study read, and in which part is each?"""
    output:
        documents="<results>/text/{text}/documents.parquet",
        problems="<results>/text/{text}/problems.parquet",
    log:
        "<logs>/prepare_text/{text}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "prepare_text"),
        runtime=runtime(60, "prepare_text"),
        gpu=0,
    params:
        text=settings("text", "text"),
        split=settings("split"),
        without_commit=lambda wildcards: without_commit("text", wildcards.text),
        code=code_hash("reasondiff.text.preparation"),
    script:
        "../../scripts/prepare_text.py"


rule train_tokenizer:
    """How does the tiny chain read text? (Tokenizers with `source: train`.)"""
    output:
        "<results>/text/tokenizers/{tokenizer}/tokenizer.json",
        "<results>/text/tokenizers/{tokenizer}/tokenizer_config.json",
    log:
        "<logs>/train_tokenizer/{tokenizer}.log",
    wildcard_constraints:
        tokenizer="|".join(n for n, t in study.tokenizers.items() if t.source == "train") or "none",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(15),
        gpu=0,
    params:
        settings=settings("tokenizers", "tokenizer"),
        code=code_hash("reasondiff.text.bpe"),
    script:
        "../../scripts/train_tokenizer.py"


rule copy_tokenizer:
    """Which tokenizer does a pair declare? (Tokenizers with `source: model`.)"""
    input:
        model=lambda wildcards: f"<results>/models/{study.tokenizers[wildcards.tokenizer].model}/model.json",
    output:
        "<results>/text/tokenizers/{tokenizer}/tokenizer.json",
        "<results>/text/tokenizers/{tokenizer}/tokenizer_config.json",
    log:
        "<logs>/copy_tokenizer/{tokenizer}.log",
    wildcard_constraints:
        tokenizer="|".join(n for n, t in study.tokenizers.items() if t.source == "model") or "none",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(15),
        gpu=0,
    params:
        code=code_hash("reasondiff.models.load"),
    script:
        "../../scripts/copy_tokenizer.py"


rule tokenize_text:
    """What is the one table of ids that all models of a pair read, and how long are its documents?"""
    input:
        documents="<results>/text/{text}/documents.parquet",
        tokenizer="<results>/text/tokenizers/{tokenizer}/tokenizer.json",
    output:
        tokens="<results>/text/{text}/{tokenizer}/tokens.npz",
        statistics="<results>/text/{text}/{tokenizer}/statistics.tsv",
        histogram="<results>/text/{text}/{tokenizer}/histogram.tsv",
        parts="<results>/text/{text}/{tokenizer}/parts.tsv",
    log:
        "<logs>/tokenize_text/{text}/{tokenizer}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000, "tokenize_text"),
        runtime=runtime(120, "tokenize_text"),
        gpu=0,
    params:
        text=settings("text", "text"),
        code=code_hash("reasondiff.text.tokens"),
    script:
        "../../scripts/tokenize_text.py"
