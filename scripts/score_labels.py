"""Labels and examples of the part `score` in; how well each label predicts where its latent fires out."""

from reasondiff.config import Labels
from reasondiff.job import job
from reasondiff.labels.labelling import settings_card
from reasondiff.labels.providers import open_provider
from reasondiff.labels.scores import score_labels
from reasondiff.store import file_digest, read_json, read_table, write_table

with job(snakemake) as log:
    paths, params = snakemake.input, snakemake.params
    settings = Labels.model_validate(params.settings)
    provider = open_provider(settings, params.study)

    scores = score_labels(read_json(paths.labels), paths.examples, read_table(paths.firing), provider, settings.scores)
    log.info("%d latents, %d passages unanswered", scores["latent"].nunique(), scores["n_unanswered"].sum())

    card = {
        "labels": file_digest(paths.labels),
        "examples": file_digest(paths.examples),
        "firing": file_digest(paths.firing),
        "settings": settings_card(settings, with_scores=True),
        "code": params.code,
    }
    write_table(snakemake.output[0], scores, card)
