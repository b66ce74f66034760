"""Transcoders from elsewhere in; the same ones out, or a refusal that says what they are instead."""

from pathlib import Path

from reasondiff.config import ReadyTranscoders, TranscoderEvaluation
from reasondiff.dictionaries.admission import refuse_unfaithful, unexplained
from reasondiff.dictionaries.ready import read_ready
from reasondiff.dictionaries.transcoder import hookpoint, save_transcoder
from reasondiff.job import job
from reasondiff.models.pairing import open_stream
from reasondiff.models.stream import calibrate
from reasondiff.revisions import refuse_unpinned

with job(snakemake) as log:
    refuse_unpinned(snakemake.params.without_commit)
    ready, layers = ReadyTranscoders.model_validate(snakemake.params.ready), snakemake.params.layers
    stream = open_stream(
        [snakemake.input.model],
        snakemake.input.tokens,
        snakemake.input.alignment,
        layers,
        **snakemake.params.reading,
        place="mlp",
    )
    info = stream.infos[0]
    transcoders = read_ready(ready, layers, info.hidden, info.layers, info.name)

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    on_device = {layer: transcoder.to(stream.device) for layer, transcoder in transcoders.items()}
    evaluation = TranscoderEvaluation.model_validate(snakemake.params.evaluation)
    for layer, (fvu, fvu_linear) in unexplained(stream, statistics, on_device, evaluation.linear_tokens).items():
        log.info("layer %d: unexplained variance %.3f, of the best linear map %.3f", layer, fvu, fvu_linear)
        refuse_unfaithful(
            layer, fvu, fvu_linear, f"{ready.folder or ready.repo}/{transcoders[layer].card['hookpoint']}"
        )

    for layer, transcoder in transcoders.items():
        save_transcoder(Path(snakemake.params.folder) / hookpoint(layer), transcoder)
