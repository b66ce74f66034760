"""A pair's architectures and text in; a crosscoder that learnt from random-weight copies of the models out."""

from reasondiff.config import Bank, Concepts, Evaluation
from reasondiff.dictionaries.crosscoder import save_crosscoder
from reasondiff.dictionaries.untrained import train_untrained
from reasondiff.job import job
from reasondiff.models.untrained import open_untrained_stream

with job(snakemake):
    wanted, layer = Concepts.model_validate(snakemake.params.settings), snakemake.params.layer
    stream = open_untrained_stream(
        snakemake.input.models, snakemake.input.tokens, snakemake.input.alignment, [layer], wanted.seed,
        **snakemake.params.reading,
    )  # fmt: skip

    crosscoder = train_untrained(
        Bank.model_validate(snakemake.params.bank),
        snakemake.params.point,
        layer,
        wanted.seed,
        wanted.untrained_tokens,
        stream,
        threshold_tokens=Evaluation.model_validate(snakemake.params.evaluation).threshold_tokens,
        code=snakemake.params.code,
    )

    save_crosscoder(snakemake.output[0], crosscoder)
