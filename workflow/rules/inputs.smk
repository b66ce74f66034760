# What a study reads from elsewhere: named, pinned and fetched. These rules need the network and run where Snakemake
# itself does; all others can then do without (HF_HUB_OFFLINE=1).


localrules:
    resolve_revisions,
    fetch_inputs,


# no output: named as a target it always runs, and never takes away the commits that stand in the file
rule resolve_revisions:
    """At which commit is each repository of the hub that the study names, now? (Written to its file of revisions.)"""
    log:
        "<logs>/resolve_revisions.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=15,
        gpu=0,
    params:
        study=study.model_dump(mode="json"),
        file=beside_workflow(study.revisions) if study.revisions else None,
        code=code_hash("reasondiff.revisions"),
    script:
        "../../scripts/resolve_revisions.py"


rule fetch_inputs:
    """Is everything on this machine that the study takes from elsewhere, and how large is it? (Fetched if not.)"""
    output:
        "<results>/inputs.tsv",
    log:
        "<logs>/fetch_inputs.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=1440,
        gpu=0,
    params:
        study=study.model_dump(mode="json"),
        prompts=file_of_prompts() if study.prompts else None,
        without_commit=without_commit(),
        code=code_hash("reasondiff.inputs"),
    script:
        "../../scripts/fetch_inputs.py"
