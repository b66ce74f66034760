"""Responses to benchmark prompts and the models that gave them in; the tokens that graphs explain out."""

from reasondiff.config import Prompts
from reasondiff.graphs.targets import choose_targets
from reasondiff.job import job
from reasondiff.models.load import read_info
from reasondiff.store import file_digest, read_table, write_table

with job(snakemake) as log:
    params = snakemake.params
    responses = read_table(snakemake.input.responses)
    infos = [read_info(path) for path in snakemake.input.models]

    targets = choose_targets(responses, infos, Prompts.model_validate(params.settings), params.device, params.dtype)

    log.info("%d targets, %d cannot be had", targets["reason"].isna().sum(), targets["reason"].notna().sum())
    card = {
        "models": {info.name: info.weights_digest for info in infos},
        "responses": file_digest(snakemake.input.responses),
        "settings": params.settings,
        "code": params.code,
    }
    write_table(snakemake.output[0], targets, card)
