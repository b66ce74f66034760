"""A model's MLP inputs and outputs in, transcoders of its layers out; finished ones are kept."""

from reasondiff.dictionaries.transcoding import train_transcoders_from_files
from reasondiff.dictionaries.workers import run_together
from reasondiff.job import job

with job(snakemake):
    params = snakemake.params
    run_together(
        train_transcoders_from_files,
        processes=int(snakemake.resources.get("gpu", 0) or 1),
        device=params.reading["device"],
        arguments=dict(
            model=snakemake.input.model,
            tokens=snakemake.input.tokens,
            alignment=snakemake.input.alignment,
            starts=list(snakemake.input.get("starts", [])),
            reading=params.reading,
            layers=list(params.layers),
            points=params.points,
            schedule=params.schedule,
            training=params.training,
            folder=params.folder,
            seed=params.seed,
            code=params.code,
            checkpoint=params.checkpoint,
        ),
    )
