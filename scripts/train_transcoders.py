"""A model's MLP inputs and outputs in, transcoders of its layers out; finished ones are kept."""

from pathlib import Path

from reasondiff.config import Schedule, Tracking, TranscoderPoint
from reasondiff.dictionaries.transcoder import TranscoderFolders, layer_of
from reasondiff.dictionaries.transcoder_trainer import Recipe
from reasondiff.dictionaries.transcoding import train_peers, train_transcoders
from reasondiff.job import job
from reasondiff.models.pairing import open_stream

with job(snakemake):
    layers, training = snakemake.params.layers, snakemake.params.training
    train = {"reasondiff": train_transcoders, "sparsify": train_peers}[training["trainer"]]
    starts = [Path(weights).parent for weights in snakemake.input.get("starts", [])]
    stream = open_stream(
        [snakemake.input.model],
        snakemake.input.tokens,
        snakemake.input.alignment,
        layers,
        **snakemake.params.reading,
        place="mlp",
    )
    train(
        stream,
        {name: TranscoderPoint.model_validate(point) for name, point in snakemake.params.points.items()},
        Schedule.model_validate(snakemake.params.schedule),
        Recipe(**training["recipe"]),
        TranscoderFolders(snakemake.params.folder, snakemake.params.seed),
        starts={layer_of(folder): folder for folder in starts},
        memory_gib=training["memory_gib"],
        tracking=Tracking.model_validate(training["tracking"]),
        code=snakemake.params.code,
        checkpoint=Path(snakemake.params.checkpoint),
    )
