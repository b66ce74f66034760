"""What models did when latents of their graphs were changed in; how well graphs and plain guesses predict it out."""

from reasondiff.config import Interventions
from reasondiff.graphs.agreement import agreement, read_interventions
from reasondiff.job import job
from reasondiff.store import file_digest, write_table

with job(snakemake) as log:
    paths = list(snakemake.input.interventions)
    settings = Interventions.model_validate(snakemake.params.settings)

    table = agreement(read_interventions(paths), settings.bootstrap, settings.seed)
    log.info("%d graphs, %d rows", len(paths), len(table))

    card = {
        "interventions": [file_digest(path) for path in paths],
        "settings": snakemake.params.settings,
        "code": snakemake.params.code,
    }
    write_table(snakemake.output[0], table, card)
