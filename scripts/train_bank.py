"""A pair's activations in, every dictionary of one bank and seed out; finished ones are kept."""

from reasondiff.config import Bank, Evaluation, Tracking
from reasondiff.dictionaries.sweep import Outputs, train_bank
from reasondiff.job import job
from reasondiff.models.pairing import open_stream

with job(snakemake) as log:
    bank = Bank.model_validate(snakemake.params.bank)
    outputs = Outputs(snakemake.params.folder, list(bank.layers), list(snakemake.params.points), snakemake.params.seed)

    def open_bank_stream():
        return open_stream(
            snakemake.input.models,
            snakemake.input.tokens,
            snakemake.input.alignment,
            bank.layers,
            **snakemake.params.reading,
        )

    train_bank(
        bank,
        snakemake.wildcards.pair,
        outputs,
        open_bank_stream,
        threshold_tokens=Evaluation.model_validate(snakemake.params.evaluation).threshold_tokens,
        tracking=Tracking.model_validate(snakemake.params.tracking),
        code=snakemake.params.code,
        checkpoint=snakemake.params.checkpoint,
        memory_gib=snakemake.params.memory_gib,
    )
