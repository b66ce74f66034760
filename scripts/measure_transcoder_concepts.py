"""A model and its transcoders in; for each known concept the latents that tell it best, beside their baselines, out."""

from reasondiff.config import Concepts
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.job import job
from reasondiff.latents.concepts import measure_transcoder_concepts, point_and_seed
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, write_table
from reasondiff.text.token_strings import token_strings

with job(snakemake):
    paths, reading = list(snakemake.input.transcoders), snakemake.params.reading
    transcoders, strings = load_set(paths, reading["device"]), token_strings(snakemake.input.tokenizer)
    stream = open_stream(
        [snakemake.input.model], snakemake.input.tokens, snakemake.input.alignment, list(transcoders), **reading,
        place="mlp",
    )  # fmt: skip
    wanted = Concepts.model_validate(snakemake.params.settings)

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    table = measure_transcoder_concepts(
        stream, statistics, transcoders, point_and_seed(paths[0]), strings, wanted, snakemake.params.of
    )

    card = {
        **stream_card(stream),
        "transcoders": [file_digest(path) for path in paths],
        "tokenizer": file_digest(snakemake.input.tokenizer),
        "settings": snakemake.params.settings,
        "code": snakemake.params.code,
    }
    write_table(snakemake.output[0], table, card)
