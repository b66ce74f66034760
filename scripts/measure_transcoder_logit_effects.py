"""A model and its transcoders in; the tokens that their latents raise and lower, out."""

from reasondiff.dictionaries.transcoder import load_set
from reasondiff.job import job
from reasondiff.latents.logits import measure_transcoder_logit_effects, write_logit_effects
from reasondiff.models.load import read_info
from reasondiff.store import file_digest, read_table
from reasondiff.text.token_strings import token_strings

with job(snakemake) as log:
    paths, params = snakemake.input, snakemake.params
    model, transcoders = read_info(paths.model), load_set(list(paths.transcoders), params.device)

    table = measure_transcoder_logit_effects(
        model, transcoders, read_table(paths.firing), token_strings(paths.tokenizer), params.number, params.device
    )
    log.info("%d rows", len(table))

    card = {
        "models": [[model.name, model.weights_digest]],
        "transcoders": [file_digest(path) for path in paths.transcoders],
        "firing": file_digest(paths.firing),
        "tokenizer": file_digest(paths.tokenizer),
        "number": params.number,
        "code": params.code,
    }
    write_logit_effects(snakemake.output[0], table, card)
