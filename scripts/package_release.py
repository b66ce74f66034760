"""A finished study in, a folder for each of its repositories out: artefacts, a card in words, a manifest."""

from pathlib import Path

from reasondiff.job import job
from reasondiff.release.cards import card_of
from reasondiff.release.contents import SPLIT, ReleasedParts, repositories
from reasondiff.release.packaging import package
from reasondiff.store import read_json, read_table

with job(snakemake) as log:
    given = snakemake.input
    study = ReleasedParts.model_validate(snakemake.params.study)
    tables = {Path(path).stem: read_table(path) for path in given.tables}
    models = {Path(path).parent.name: read_json(path) for path in given.models}

    contents = {content: given[content] for content in (*SPLIT, "latents", "graphs")}
    folders = {Path(folder).name: folder for folder in snakemake.output}
    for repository in repositories(study.study, Path(snakemake.output[0]).parents[1], contents):
        package(folders.pop(repository.name), repository.files, card_of(repository, study, tables, models))
        log.info("%s: %d files", repository.name, len(repository.files))
