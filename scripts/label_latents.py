"""Examples of the part `choose`, firing and latent tables in; words for some latents out."""

from reasondiff.config import Labels
from reasondiff.job import job
from reasondiff.labels.labelling import count_states, label_latents, settings_card
from reasondiff.labels.providers import open_provider
from reasondiff.labels.selection import choose_latents, most_used
from reasondiff.store import file_digest, read_table, write_json

with job(snakemake) as log:
    paths, params = snakemake.input, snakemake.params
    settings = Labels.model_validate(params.settings)
    tables = [read_table(path) for path in paths.latents]  # none for transcoders
    reused = [read_table(path) for path in paths.graphs]  # only for transcoders that graphs are made with
    in_graphs = [key for table in reused for key in most_used(table, snakemake.wildcards.folder, params.in_graphs)]

    chosen = choose_latents(read_table(paths.firing), tables[0] if tables else None, settings, in_graphs)
    content = label_latents(chosen, paths.examples, open_provider(settings, params.study), settings)
    log.info("%d latents: %s, %s", len(chosen), count_states(content), content["usage"])

    card = {
        "examples": file_digest(paths.examples),
        "firing": file_digest(paths.firing),
        "latents": [file_digest(path) for path in paths.latents],
        "graphs": in_graphs,
        "settings": settings_card(settings),
        "code": params.code,
    }
    write_json(snakemake.output[0], content, card)
