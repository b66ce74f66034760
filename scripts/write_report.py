"""Everything the study found in, one page out; beside it pages of the latents where they would be too heavy."""

from pathlib import Path

from reasondiff.job import job
from reasondiff.report.costs import run_files
from reasondiff.report.inputs import StudyParts, gather
from reasondiff.report.latent_pages import browsed, page_files
from reasondiff.report.page import write_page
from reasondiff.store import write_text

with job(snakemake) as log:
    study = StudyParts.model_validate(snakemake.params.study)
    tables = gather(snakemake.input)
    svgs = {Path(path).stem: Path(path).read_text() for path in snakemake.input.svgs}
    facts = run_files(snakemake.input)
    dictionaries = [browsed(files, study, tables) for files in page_files(snakemake.input)]

    card = {"study": study.study, "config": snakemake.params.config_digest, "code": snakemake.params.code}
    pages = write_page(study, tables, svgs, facts, snakemake.params.config_digest, card, dictionaries)

    log.info("%d figures, %.2f MiB, %d beside", len(svgs), len(pages.report.encode()) / 2**20, len(pages.beside))
    for name, text in pages.beside.items():
        write_text(Path(snakemake.output.pages) / name, text)
    write_text(snakemake.output[0], pages.report)
