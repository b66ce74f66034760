"""All crosscoders of one site in; for each the tokens that its latents raise and lower, out."""

from pathlib import Path

from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.job import job
from reasondiff.latents.logits import measure_logit_effects, write_logit_effects
from reasondiff.models.load import read_info
from reasondiff.store import file_digest, read_table
from reasondiff.text.token_strings import token_strings

with job(snakemake) as log:
    paths, params = snakemake.input, snakemake.params
    models = [read_info(path) for path in paths.models]
    crosscoders = {path: load_crosscoder(path, params.device) for path in paths.crosscoders}
    firing_of = dict(zip(paths.crosscoders, paths.firing, strict=True))
    firing = {path: read_table(table) for path, table in firing_of.items()}

    tables = measure_logit_effects(
        models, crosscoders, firing, token_strings(paths.tokenizer), params.number, params.device
    )

    card = {
        "models": [[info.name, info.weights_digest] for info in models],
        "tokenizer": file_digest(paths.tokenizer),
        "number": params.number,
        "code": params.code,
    }
    for path, table in tables.items():
        log.info("%s: %d rows", path, len(table))
        inputs = {"crosscoder": file_digest(path), "firing": file_digest(firing_of[path])}
        write_logit_effects(Path(path).with_name("logits.parquet"), table, {**card, **inputs})
