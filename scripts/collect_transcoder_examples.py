"""A model and its transcoders in; the examples of their live latents, and how all of their latents fire, out."""

from reasondiff.config import Examples
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.job import job
from reasondiff.latents.example_table import write_examples
from reasondiff.latents.examples import collect_examples, joined, transcoder_coder
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, write_table
from reasondiff.text.token_strings import token_strings

with job(snakemake) as log:
    paths, reading = list(snakemake.input.transcoders), snakemake.params.reading
    coders = {layer: transcoder_coder(one, layer) for layer, one in load_set(paths, reading["device"]).items()}
    words = token_strings(snakemake.input.tokenizer)
    stream = open_stream(
        [snakemake.input.model], snakemake.input.tokens, snakemake.input.alignment, list(coders), **reading,
        place="mlp",
    )  # fmt: skip
    wanted = Examples.model_validate(snakemake.params.settings)

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    collected = collect_examples(stream, statistics, coders, wanted, words, snakemake.params.of)
    firing, facts = {}, {}

    def pieces():
        for layer, found in collected:
            firing[layer], facts[layer] = found.firing, found.facts
            yield from found.examples

    card = {
        **stream_card(stream),
        "of": snakemake.params.of,
        "transcoders": [file_digest(path) for path in paths],
        "tokenizer": file_digest(snakemake.input.tokenizer),
        "settings": snakemake.params.settings,
        "code": snakemake.params.code,
    }
    count = write_examples(snakemake.output.examples, pieces(), card)
    whole, common = joined(firing, facts)
    log.info("%d examples of %d latents", count, (whole["firings"] > 0).sum())
    write_table(snakemake.output.firing, whole, {**card, **common})
