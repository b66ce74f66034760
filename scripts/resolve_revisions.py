"""The study in, the commits of its hub repositories out, beside those that its file of revisions has already."""

from reasondiff.config import ConfigError, Study
from reasondiff.job import job
from reasondiff.revisions import read_revisions, resolve_revisions, write_revisions

with job(snakemake) as log:
    file = snakemake.params.file
    if file is None:
        raise ConfigError("the study names no file of revisions: set `revisions: config/<study>.revisions.yaml` in it")
    found = resolve_revisions(Study.model_validate(snakemake.params.study))

    if found:
        write_revisions(file, {**read_revisions(file), **found})
    lines = [f"{entry}: {commit}" for entry, commit in found.items()]
    log.warning("%s", "\n".join([f"{len(found)} new commit(s) in {file}", *lines]))
