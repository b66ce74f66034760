"""Every sweep point on the pilot layers in; one table of what each costs the model out."""

from reasondiff.config import TranscoderEvaluation, TranscoderPoint
from reasondiff.dictionaries.pilot import evaluate_sweep
from reasondiff.dictionaries.transcoder import TranscoderFolders, load_set
from reasondiff.job import job
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, write_table

with job(snakemake):
    params, reading = snakemake.params, snakemake.params.reading
    folders = TranscoderFolders(params.folder, params.seed)
    points = {name: TranscoderPoint.model_validate(point) for name, point in params.points.items()}
    transcoders = {
        name: load_set([folders.path(name, layer) for layer in params.layers], reading["device"]) for name in points
    }
    stream = open_stream(
        [snakemake.input.model], snakemake.input.tokens, snakemake.input.alignment, params.layers, **reading,
        place="mlp",
    )  # fmt: skip

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    table = evaluate_sweep(
        stream,
        statistics,
        transcoders,
        points,
        TranscoderEvaluation.model_validate(params.evaluation),
        params.tokens,
        params.uninformative_nats,
    )

    card = {
        **stream_card(stream),
        "transcoders": [file_digest(path) for path in snakemake.input.transcoders],
        "points": params.points,
        "evaluation": params.evaluation,
        "tokens": params.tokens,
        "code": params.code,
    }
    write_table(snakemake.output[0], table, card)
