# What a study costs, from its config alone: before anything is fetched or trained, on any machine.
localrules:
    estimate_cost,


rule estimate_cost:
    """What will the study cost, in hours of a card, disk, memory and dollars?"""
    output:
        "<results>/cost.tsv",
    log:
        "<logs>/estimate_cost.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(15),
        gpu=0,
    params:
        study=study.model_dump(mode="json"),
        sizes={name: size and size.model_dump(mode="json") for name, size in SIZES.items()},
        prompts=len(ASKED),
        code=code_hash("reasondiff.costs.table"),
    message:
        "What the study is reckoned to cost"
    script:
        "../../scripts/estimate_cost.py"
