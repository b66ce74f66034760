# What reasoning training changed inside a model, from raw data to one page.
#   snakemake --cores all results/report.html                        the default study (config/config.yaml)
#   snakemake --cores all --configfile config/smoke.yaml             another study: rule all asks for its page
from snakemake.utils import min_version

min_version("9.20")


# studies are complete files: the default is read only when no other was given, never merged into one
if "study" not in config:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/costs.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/diffing.smk"
include: "workflow/rules/transcoders.smk"
include: "workflow/rules/latents.smk"
include: "workflow/rules/graphs.smk"
include: "workflow/rules/motifs.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/release.smk"


report: "workflow/report/workflow.rst"


# a dry run does not come here: it says what would run, and what labels would cost
onstart:
    planned = list(workflow.dag.needrun_jobs())
    refuse_commits_that_are_missing(planned)
    require_key_of_provider(planned)
    refuse_upload(planned)


localrules:
    all,


rule all:
    """Everything a study is for: its page, and what it was made of."""
    default_target: True
    input:
        "<results>/report.html",
        "<results>/manifest.json",
