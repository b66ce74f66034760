"""A model, its transcoders and held-out problems in; its answers with its own MLPs and with transcoders out."""

from reasondiff.config import Accuracy
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.job import job
from reasondiff.models.imitation import compare_answers
from reasondiff.models.load import read_info
from reasondiff.store import file_digest, read_table, write_table

with job(snakemake):
    params, paths = snakemake.params, list(snakemake.input.transcoders)
    info = read_info(snakemake.input.model)

    accuracy, responses = compare_answers(
        info,
        read_table(snakemake.input.problems),
        Accuracy.model_validate(params.settings),
        params.elicitations,
        load_set(paths, params.device),
        params.problems,
        params.device,
        params.dtype,
        params.first_positions,
    )

    card = {
        "model": info.weights_digest,
        "transcoders": [file_digest(path) for path in paths],
        "problems": file_digest(snakemake.input.problems),
        "settings": params.settings,
        "asked": [params.problems, params.elicitations, params.first_positions],
        "code": params.code,
    }
    write_table(snakemake.output.accuracy, accuracy, card)
    write_table(snakemake.output.responses, responses, card)
