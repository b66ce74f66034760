rule check_alignment:
    """Does every id mean the same to all models of a pair?"""
    input:
        models=models_of_pair,
        tokens=tokens_of_pair,
        tokenizer=lambda wildcards: f"<results>/text/tokenizers/{study.pairs[wildcards.pair].tokenizer}/tokenizer.json",
    output:
        "<results>/crosscoders/{pair}/{text}/alignment.json",
    log:
        "<logs>/check_alignment/{pair}/{text}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000, "check_alignment"),
        runtime=runtime(15, "check_alignment"),
        gpu=0,
    params:
        tokenizer=lambda wildcards: study.pairs[wildcards.pair].tokenizer,
        foreign_share=study.gates.foreign_share,
        code=code_hash("reasondiff.text.alignment", "reasondiff.models.load"),
    script:
        "../../scripts/check_alignment.py"


rule measure_divergence:
    """In which layers did training move the residual stream, and how far?"""
    input:
        models=models_of_pair,
        tokens=tokens_of_pair,
        alignment="<results>/crosscoders/{pair}/{text}/alignment.json",
    output:
        "<results>/crosscoders/{pair}/{text}/divergence.tsv",
    log:
        "<logs>/measure_divergence/{pair}/{text}.log",
    benchmark:
        "<logs>/benchmarks/measure_divergence/{pair}.{text}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "measure_divergence"),
        runtime=runtime(60, "measure_divergence"),
        gpu=GPU,
    params:
        settings=settings("divergence"),
        reading=reading,
        code=code_hash("reasondiff.models.divergence", "reasondiff.models.pairing"),
    script:
        "../../scripts/measure_divergence.py"


# One rule per bank and seed. update(): finished points stay in place, and the script skips those whose fingerprint
# still holds, so adding a point, a pair or a bank trains only what is new.
for _name, _bank in study.banks.items():
    for _seed in _bank.seeds():

        rule:
            """What do the sweep points of a bank learn from one shared stream of activations?"""
            name:
                f"train_bank_{_name}_seed{_seed}"
            input:
                models=models_of_pair,
                tokens=tokens_of_pair,
                alignment="<results>/crosscoders/{pair}/{text}/alignment.json",
            output:
                [
                    update(f"<results>/crosscoders/{{pair}}/{{text}}/layer{_layer}/{_point}/seed{_seed}/{_file}")
                    for _layer in _bank.layers
                    for _point in _bank.points_of(_seed)
                    for _file in ("crosscoder.safetensors", "config.json", "training.jsonl")
                ],
            log:
                f"<logs>/train_bank/{{pair}}/{{text}}/{_name}.seed{_seed}.log",
            benchmark:
                f"<logs>/benchmarks/train_bank/{{pair}}.{{text}}.{_name}.seed{_seed}.tsv"
            wildcard_constraints:
                pair="|".join(_bank.pairs),
            conda:
                "../../envs/torch.yaml"
            threads: 1
            resources:
                mem_mb=memory(3000, "train_bank"),
                runtime=runtime(1440, "train_bank"),
                gpu=GPU,
            params:
                # only this pair: adding one must not run the others again
                bank=lambda wildcards, bank=_bank: {**bank.model_dump(mode="json"), "pairs": [wildcards.pair]},
                points=list(_bank.points_of(_seed)),
                seed=_seed,
                folder=subpath(output[0], ancestor=4),
                checkpoint=f"{study.results_dir}/crosscoders/{{pair}}/{{text}}/checkpoints/{_name}.seed{_seed}.safetensors",
                evaluation=settings("evaluation"),
                tracking=settings("tracking"),
                memory_gib=study.memory_gib,
                reading=reading,
                code=code_hash("reasondiff.dictionaries.sweep", "reasondiff.dictionaries.workers"),
            script:
                "../../scripts/train_bank.py"


# One rule per set of banks that meet at a site (pair/text/layerN): its dictionaries share every forward pass.
for _banks, _sites in sites_by_banks().items():

    rule:
        """Do the dictionaries of a site give back what they read, and does the model still work with them?"""
        name:
            "_".join(["evaluate_crosscoders", *_banks])
        input:
            models=models_of_pair,
            tokens=tokens_of_pair,
            alignment=alignment_of_pair,
            crosscoders=site_files(_banks, "crosscoder.safetensors"),
        output:
            site_files(_banks, "evaluation.tsv"),
            baselines="<results>/crosscoders/{site}/baselines.tsv",
        log:
            "<logs>/evaluate_crosscoders/{site}.log",
        benchmark:
            "<logs>/benchmarks/evaluate_crosscoders/{site}.tsv"
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "evaluate_crosscoders"),
            runtime=runtime(240, "evaluate_crosscoders"),
            gpu=GPU,
        params:
            settings=settings("evaluation"),
            layer=layer_of_site,
            reading=reading,
            code=code_hash("reasondiff.dictionaries.evaluation", "reasondiff.models.pairing"),
        script:
            "../../scripts/evaluate_crosscoders.py"


# One rule per set of banks that meet at a site (pair/text/layerN): its dictionaries share every forward pass.
for _banks, _sites in sites_by_banks(coupled=True).items():

    rule:
        """Which latents belong to one model, and is that real? One row per latent."""
        name:
            "_".join(["describe_latents", *_banks])
        input:
            models=models_of_pair,
            tokens=tokens_of_pair,
            alignment=alignment_of_pair,
            crosscoders=site_files(_banks, "crosscoder.safetensors", coupled=True),
        output:
            site_files(_banks, "latents.tsv", coupled=True),
        log:
            "<logs>/describe_latents/{site}.log",
        benchmark:
            "<logs>/benchmarks/describe_latents/{site}.tsv"
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "describe_latents"),
            runtime=runtime(240, "describe_latents"),
            gpu=GPU,
        params:
            settings=settings("latents"),
            layer=layer_of_site,
            reading=reading,
            code=code_hash("reasondiff.latents.table", "reasondiff.models.pairing"),
        script:
            "../../scripts/describe_latents.py"
