"""How does the smoke study go through SLURM in few submissions, asking for cards as a real study does?

Each submission starts two Snakemakes before its job, and each further job of its group one. So jobs are grouped. A
group is of CPU rules alone or of GPU rules alone, and no path of jobs leaves it and comes back.

Groups and the checkpoint do not go together: once `choose_transcoder` has finished, Snakemake loses count of groups
that run or wait, and stops early with an error or, worse, without one. So the study goes through in two commands.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from running import said, snakemake

HERE = Path(__file__).resolve().parent
SMOKE = ("--configfile", "config/smoke.yaml")

# beginnings of rules' names
GROUPS = {
    "start": ("prepare_text", "train_tokenizer", "tokenize_text", "train_model", "check_alignment"),
    "crosscoders": (
        *("train_bank", "train_untrained", "evaluate_crosscoders", "describe_latents"),
        *("collect_examples", "measure_concepts", "measure_set_effects"),
    ),
    "logits": ("measure_logit_effects",),
    "answers": ("measure_accuracy", "measure_divergence", "check_tokenizers", "answer_prompts", "choose_targets"),
    "sweep": ("train_transcoder_sweep", "evaluate_transcoder_sweep"),
    "transcoders": ("train_transcoders",),
    "judged": ("evaluate_transcoders", "compare_answers", "collect_transcoder_examples", "measure_transcoder_"),
    "graphs": ("trace_graphs",),
    "counts": ("count_motifs", "judge_interventions", "summarise_graphs"),
    "links": ("link_latents", "split_changes"),
    "page": (
        *("export_graphs", "write_viewer", "compare_graphs"),
        *("summarise_study", "draw_figures", "write_report"),
    ),
}
# how many of a group's parts that do not depend on one another go into one submission
TOGETHER = {"logits": 2, "answers": 9, "transcoders": 2, "judged": 5, "graphs": 3, "counts": 5, "links": 4, "page": 9}
# what the first command runs, besides the checkpoint and whatever these groups need
FIRST = ("crosscoders", "answers")

LISTING = """\
include: "Snakefile"


for _rule in workflow.rules:
    print("needs", _rule.name, getattr(_rule.resources.get("gpu"), "value", 0), file=sys.stderr)
"""


def gpus_of_rules(folder: Path) -> dict[str, int]:
    """{rule: cards it asks for} in the smoke study, were its device a card."""
    (folder / "listing.smk").write_text(LISTING)
    run = snakemake("-s", "listing.smk", "--dry-run", "--cores", "1", *SMOKE, "--config", "device=cuda", folder=folder)
    assert run.returncode == 0, said(run)[-3000:]
    return {rule: int(count) for rule, count in re.findall(r"^needs (\w+) (\d+)$", said(run), flags=re.MULTILINE)}


def group_of(rule: str) -> str | None:
    return next((group for group, names in GROUPS.items() if rule.startswith(names)), None)


def arguments_of_study(gpus: dict[str, int]) -> list[str]:
    """Groups, and cards as the rules would ask for them were the study's device one."""
    groups = [f"{rule}={group}" for rule in gpus if (group := group_of(rule))]
    together = [f"{group}={count}" for group, count in TOGETHER.items()]
    cards = [f"{rule}:gpu={count}" for rule, count in gpus.items() if count]
    return ["--groups", *groups, "--group-components", *together, "--set-resources", *cards]


def until_choice(gpus: dict[str, int]) -> list[str]:
    """What makes a command end before the rules that wait for the transcoders' point."""
    return ["--until", "choose_transcoder", *(rule for rule in gpus if group_of(rule) in FIRST)]


def head(folder: Path, *arguments: str, **more) -> subprocess.Popen:
    """Snakemake with the profile for SLURM, in the background; its output goes to `folder`/head.log."""
    profile = ["--profile", "workflow/profiles/slurm", "--slurm-partition-config", str(HERE / "partitions.yaml")]
    command = [sys.executable, str(HERE / "impatient.py"), *arguments, *profile, "--latency-wait", "5"]
    with open(folder / "head.log", "a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True, **more)


def submitted(name: str) -> list[dict[str, str]]:
    """What SLURM knows of every job whose comment starts with `name`, in the order of submission."""
    said = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True).stdout
    jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in said.splitlines()]
    chosen = [job for job in jobs if job.get("Comment", "").startswith(name)]
    return sorted(chosen, key=lambda job: int(job["JobId"]))
