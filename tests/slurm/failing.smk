# What a cluster does to jobs, in small: one needs more memory than it asked for, one more time, one two cards. The
# conventions are the study's own (workflow/rules/common.smk), the profile that of docs/cluster.md.
configfile: "config/smoke.yaml"


include: "workflow/rules/common.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        "hungry.txt",
        "slow.txt",
        "two_cards.txt",


rule hungry:
    """Holds 1,300 MB for as long as SLURM needs to notice."""
    output:
        "hungry.txt",
    log:
        "logs/hungry.log",
    resources:
        mem_mb=memory(1000),
        runtime=runtime(5),
        gpu=0,
    params:
        python=sys.executable,
    shell:
        '{params.python} -c "import time; held = bytearray(1_300 * 10**6); held[::4096] = bytes(len(held[::4096])); time.sleep(8)"'
        " > {log} 2>&1 && echo {resources.mem_mb} > {output}"


rule slow:
    """Takes longer than a minute and the half that SLURM may take to notice, and less than two."""
    output:
        "slow.txt",
    log:
        "logs/slow.log",
    resources:
        mem_mb=memory(1000),
        runtime=runtime(1),
        gpu=0,
    shell:
        "sleep 92 > {log} 2>&1 && echo {resources.runtime} > {output}"


rule two_cards:
    """Sees as many cards as it asked for."""
    output:
        "two_cards.txt",
    log:
        "logs/two_cards.log",
    resources:
        mem_mb=memory(1000),
        runtime=runtime(5),
        gpu=1,
    shell:
        "echo $CUDA_VISIBLE_DEVICES > {output} 2> {log}"
