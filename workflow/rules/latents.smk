# on the machine that Snakemake runs on: it reaches the network, and one database serves all label jobs
localrules:
    label_latents,
    score_labels,


# One rule per set of banks that meet at a site (pair/text/layerN): its dictionaries share every forward pass.
for _banks, _sites in sites_by_banks(coupled=True).items():

    rule:
        """What do the latents of a site's crosscoders respond to? Examples of every live one."""
        name:
            "_".join(["collect_examples", *_banks])
        input:
            models=models_of_pair,
            tokens=tokens_of_pair,
            alignment=alignment_of_pair,
            tokenizer=tokenizer_of_pair,
            crosscoders=site_files(_banks, "crosscoder.safetensors", coupled=True),
        output:
            site_files(_banks, "examples.parquet", coupled=True),
            site_files(_banks, "firing.parquet", coupled=True),
        log:
            "<logs>/collect_examples/{site}.log",
        benchmark:
            "<logs>/benchmarks/collect_examples/{site}.tsv"
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "collect_examples"),
            runtime=runtime(240, "collect_examples"),
            gpu=GPU,
        params:
            settings=settings("examples"),
            layer=layer_of_site,
            of=lambda wildcards: pair_text(wildcards)[0],
            reading=reading,
            code=code_hash("reasondiff.latents.examples", "reasondiff.models.pairing", "reasondiff.text.token_strings"),
        script:
            "../../scripts/collect_examples.py"

    rule:
        """Which tokens does a crosscoder latent raise and lower, in each model?"""
        name:
            "_".join(["measure_logit_effects", *_banks])
        input:
            models=models_of_pair,
            tokenizer=tokenizer_of_pair,
            crosscoders=site_files(_banks, "crosscoder.safetensors", coupled=True),
            firing=site_files(_banks, "firing.parquet", coupled=True),
        output:
            site_files(_banks, "logits.parquet", coupled=True),
        log:
            "<logs>/measure_logit_effects/{site}.log",
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "measure_logit_effects"),
            runtime=runtime(60, "measure_logit_effects"),
            gpu=GPU,
        params:
            number=study.examples.logits,
            device=study.device,
            code=code_hash("reasondiff.latents.logits", "reasondiff.text.token_strings"),
        script:
            "../../scripts/measure_logit_effects.py"


rule collect_transcoder_examples:
    """What do the latents of a model's transcoders respond to? Examples of every live one."""
    input:
        model="<results>/models/{model}/model.json",
        tokens=tokens_of_transcoders,
        alignment="<results>/transcoders/{model}/{text}/alignment.json",
        tokenizer=tokenizer_of_transcoders,
        transcoders=transcoders_of_set,
    output:
        examples="<results>/transcoders/{model}/{text}/{point}/seed{seed}/examples.parquet",
        firing="<results>/transcoders/{model}/{text}/{point}/seed{seed}/firing.parquet",
    log:
        "<logs>/collect_transcoder_examples/{model}/{text}/{point}.seed{seed}.log",
    benchmark:
        "<logs>/benchmarks/collect_transcoder_examples/{model}.{text}.{point}.seed{seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000, "collect_transcoder_examples"),
        runtime=runtime(240, "collect_transcoder_examples"),
        gpu=GPU,
    params:
        settings=settings("examples"),
        of=lambda wildcards: wildcards.model,
        reading=lambda wildcards: reading_of_text(wildcards.text),
        code=code_hash("reasondiff.latents.examples", "reasondiff.models.pairing", "reasondiff.text.token_strings"),
    script:
        "../../scripts/collect_transcoder_examples.py"


rule measure_transcoder_logit_effects:
    """Which tokens does a transcoder latent raise and lower?"""
    input:
        model="<results>/models/{model}/model.json",
        tokenizer=tokenizer_of_transcoders,
        transcoders=transcoders_of_set,
        firing="<results>/transcoders/{model}/{text}/{point}/seed{seed}/firing.parquet",
    output:
        "<results>/transcoders/{model}/{text}/{point}/seed{seed}/logits.parquet",
    log:
        "<logs>/measure_transcoder_logit_effects/{model}/{text}/{point}.seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000, "measure_transcoder_logit_effects"),
        runtime=runtime(60, "measure_transcoder_logit_effects"),
        gpu=GPU,
    params:
        number=study.examples.logits,
        device=study.device,
        code=code_hash("reasondiff.latents.logits", "reasondiff.text.token_strings"),
    script:
        "../../scripts/measure_transcoder_logit_effects.py"


# One rule per set of banks that meet at a site, as for what describes its latents.
for _banks, _sites in tested_sites_by_banks().items():

    rule:
        """Do the latents that are called the reasoning model's own matter to its predictions, more than others like them?"""
        name:
            "_".join(["measure_set_effects", *_banks])
        input:
            models=models_of_pair,
            tokens=tokens_of_pair,
            alignment=alignment_of_pair,
            crosscoders=first_seed_files(_banks, "crosscoder.safetensors"),
            latents=first_seed_files(_banks, "latents.tsv"),
        output:
            first_seed_files(_banks, "effects.tsv"),
        log:
            "<logs>/measure_set_effects/{site}.log",
        benchmark:
            "<logs>/benchmarks/measure_set_effects/{site}.tsv"
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "measure_set_effects"),
            runtime=runtime(240, "measure_set_effects"),
            gpu=GPU,
        params:
            settings=study.evidence.effects.model_dump(mode="json"),
            min_problems=study.gates.min_problems,
            layer=layer_of_site,
            reading=reading,
            code=code_hash("reasondiff.evidence.measuring", "reasondiff.models.pairing"),
        script:
            "../../scripts/measure_set_effects.py"


rule label_latents:
    """Which words say what a latent responds to?"""
    input:
        examples="<results>/{folder}/examples.parquet",
        firing="<results>/{folder}/firing.parquet",
        latents=table_of_latents,
        graphs=latents_of_graphs,
    output:
        "<results>/{folder}/labels.json",
    log:
        "<logs>/label_latents/{folder}.log",
    wildcard_constraints:
        folder=DICTIONARY_FOLDER,
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "label_latents"),
        runtime=runtime(1440, "label_latents"),
        gpu=0,
    params:
        settings=settings("labels"),
        study=study.study,
        most_dollars=most_dollars,
        failed_before=failed_before,
        in_graphs=study.graphs.labelled if study.graphs else 0,
        code=code_hash("reasondiff.labels.labelling", "reasondiff.labels.selection", "reasondiff.labels.providers"),
    message:
        "Labels for {wildcards.folder} by provider {params.settings[provider]}: {params.most_dollars}"
    script:
        "../../scripts/label_latents.py"


rule score_labels:
    """Do the labels tell on which text a latent fires, and more than shuffled ones?"""
    input:
        labels="<results>/{folder}/labels.json",
        examples="<results>/{folder}/examples.parquet",
        firing="<results>/{folder}/firing.parquet",
    output:
        "<results>/{folder}/label_scores.tsv",
    log:
        "<logs>/score_labels/{folder}.log",
    wildcard_constraints:
        folder=DICTIONARY_FOLDER,
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, "score_labels"),
        runtime=runtime(1440, "score_labels"),
        gpu=0,
    params:
        settings=settings("labels"),
        study=study.study,
        code=code_hash("reasondiff.labels.scores", "reasondiff.labels.labelling", "reasondiff.labels.providers"),
    script:
        "../../scripts/score_labels.py"


rule export_examples:
    """The examples of a dictionary in the shapes that other tools read (no part of the page; ask for it by name)."""
    input:
        examples="<results>/{folder}/examples.parquet",
        firing="<results>/{folder}/firing.parquet",
        logits="<results>/{folder}/logits.parquet",
        labels="<results>/{folder}/labels.json",
    output:
        neuronpedia=directory("<results>/{folder}/exports/neuronpedia"),
        legacy=directory("<results>/{folder}/exports/legacy"),
    log:
        "<logs>/export_examples/{folder}.log",
    wildcard_constraints:
        folder=DICTIONARY_FOLDER,
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(240),
        gpu=0,
    params:
        study=study.study,
        code=code_hash("reasondiff.latents.export"),
    script:
        "../../scripts/export_examples.py"


# One rule per set of banks that meet at a site: from these follows the point of the dictionary on random weights.
for _banks, _sites in concept_sites().items():

    rule:
        """What does a dictionary learn from models with random weights? A baseline of every concept."""
        name:
            "_".join(["train_untrained", *_banks])
        input:
            models=models_of_pair,
            tokens=tokens_of_pair,
            alignment=alignment_of_pair,
        output:
            crosscoder="<results>/crosscoders/{site}/untrained/crosscoder.safetensors",
            config="<results>/crosscoders/{site}/untrained/config.json",
        log:
            "<logs>/train_untrained/{site}.log",
        benchmark:
            "<logs>/benchmarks/train_untrained/{site}.tsv"
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "train_untrained"),
            runtime=runtime(1440, "train_untrained"),
            gpu=GPU,
        params:
            bank=untrained_bank,
            point=listing.untrained_point(study, _banks)[1],
            layer=layer_of_site,
            settings=settings("concepts"),
            evaluation=settings("evaluation"),
            reading=reading,
            code=code_hash("reasondiff.dictionaries.untrained", "reasondiff.models.pairing"),
        script:
            "../../scripts/train_untrained.py"

    rule:
        """Which latents tell the concepts that are known token by token, and better than single neurons?"""
        name:
            "_".join(["measure_concepts", *_banks])
        input:
            models=models_of_pair,
            tokens=tokens_of_pair,
            alignment=alignment_of_pair,
            tokenizer=tokenizer_of_pair,
            crosscoders=site_files(_banks, "crosscoder.safetensors", coupled=True),
            latents=site_files(_banks, "latents.tsv", coupled=True),
            untrained="<results>/crosscoders/{site}/untrained/crosscoder.safetensors",
        output:
            "<results>/crosscoders/{site}/concepts.tsv",
        log:
            "<logs>/measure_concepts/{site}.log",
        benchmark:
            "<logs>/benchmarks/measure_concepts/{site}.tsv"
        wildcard_constraints:
            site="|".join(_sites),
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=memory(3000, "measure_concepts"),
            runtime=runtime(240, "measure_concepts"),
            gpu=GPU,
        params:
            settings=settings("concepts"),
            layer=layer_of_site,
            of=lambda wildcards: pair_text(wildcards)[0],
            reading=reading,
            code=code_hash(
                "reasondiff.latents.concepts",
                "reasondiff.dictionaries.untrained",
                "reasondiff.models.pairing",
                "reasondiff.text.token_strings",
            ),
        script:
            "../../scripts/measure_concepts.py"


rule measure_transcoder_concepts:
    """Which transcoder latents tell the concepts that are known token by token?"""
    input:
        model="<results>/models/{model}/model.json",
        tokens=tokens_of_transcoders,
        alignment="<results>/transcoders/{model}/{text}/alignment.json",
        tokenizer=tokenizer_of_transcoders,
        transcoders=transcoders_of_set,
    output:
        "<results>/transcoders/{model}/{text}/{point}/seed{seed}/concepts.tsv",
    log:
        "<logs>/measure_transcoder_concepts/{model}/{text}/{point}.seed{seed}.log",
    benchmark:
        "<logs>/benchmarks/measure_transcoder_concepts/{model}.{text}.{point}.seed{seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(3000, "measure_transcoder_concepts"),
        runtime=runtime(240, "measure_transcoder_concepts"),
        gpu=GPU,
    params:
        settings=study.concepts.model_dump(mode="json") if study.concepts else None,
        of=lambda wildcards: wildcards.model,
        reading=lambda wildcards: reading_of_text(wildcards.text),
        code=code_hash("reasondiff.latents.concepts", "reasondiff.models.pairing", "reasondiff.text.token_strings"),
    script:
        "../../scripts/measure_transcoder_concepts.py"
