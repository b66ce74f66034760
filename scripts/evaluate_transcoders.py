"""A model and its transcoders in; a table of what replacing its MLPs costs out."""

from reasondiff.config import TranscoderEvaluation
from reasondiff.dictionaries.faithfulness import evaluate_transcoders
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.job import job
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, write_table

with job(snakemake):
    paths, reading = list(snakemake.input.transcoders), snakemake.params.reading
    transcoders = load_set(paths, reading["device"])
    stream = open_stream(
        [snakemake.input.model], snakemake.input.tokens, snakemake.input.alignment, list(transcoders), **reading,
        place="mlp",
    )  # fmt: skip

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    table = evaluate_transcoders(
        stream, statistics, transcoders, TranscoderEvaluation.model_validate(snakemake.params.settings)
    )

    card = {
        **stream_card(stream),
        "transcoders": [file_digest(path) for path in paths],
        "settings": snakemake.params.settings,
        "code": snakemake.params.code,
    }
    write_table(snakemake.output[0], table, card)
