"""All crosscoders of one site in; for each the examples of its live latents, and how all of its latents fire, out."""

from pathlib import Path

from reasondiff.config import Examples
from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.job import job
from reasondiff.latents.example_table import write_examples
from reasondiff.latents.examples import collect_examples, crosscoder_coder
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, write_table
from reasondiff.text.token_strings import token_strings

with job(snakemake) as log:
    layer, reading = snakemake.params.layer, snakemake.params.reading
    coders = {
        path: crosscoder_coder(load_crosscoder(path, reading["device"]), layer) for path in snakemake.input.crosscoders
    }
    words = token_strings(snakemake.input.tokenizer)
    stream = open_stream(snakemake.input.models, snakemake.input.tokens, snakemake.input.alignment, [layer], **reading)
    wanted = Examples.model_validate(snakemake.params.settings)

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    card = {
        **stream_card(stream),
        "of": snakemake.params.of,
        "tokenizer": file_digest(snakemake.input.tokenizer),
        "settings": snakemake.params.settings,
        "code": snakemake.params.code,
    }
    for path, found in collect_examples(stream, statistics, coders, wanted, words, snakemake.params.of):
        own = {**card, "crosscoder": file_digest(path)}
        count = write_examples(Path(path).with_name("examples.parquet"), found.examples, own)
        log.info("%s: %d examples of %d latents", path, count, (found.firing["firings"] > 0).sum())
        write_table(Path(path).with_name("firing.parquet"), found.firing, {**own, **found.facts})
