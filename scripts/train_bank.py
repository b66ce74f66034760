"""A pair's activations in, every dictionary of one bank and seed out; finished ones are kept."""

from reasondiff.dictionaries.sweep import train_bank_from_files
from reasondiff.dictionaries.workers import run_together
from reasondiff.job import job

with job(snakemake):
    params = snakemake.params
    run_together(
        train_bank_from_files,
        processes=int(snakemake.resources.get("gpu", 0) or 1),
        device=params.reading["device"],
        arguments=dict(
            models=list(snakemake.input.models),
            tokens=snakemake.input.tokens,
            alignment=snakemake.input.alignment,
            reading=params.reading,
            bank=params.bank,
            pair=snakemake.wildcards.pair,
            folder=params.folder,
            points=list(params.points),
            seed=params.seed,
            threshold_tokens=params.evaluation["threshold_tokens"],
            tracking=params.tracking,
            code=params.code,
            checkpoint=params.checkpoint,
            memory_gib=params.memory_gib,
        ),
    )
