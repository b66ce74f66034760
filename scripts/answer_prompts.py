"""Models and benchmark prompts in; their responses, and how often they are right, out."""

from reasondiff.config import Prompts
from reasondiff.job import job
from reasondiff.models.answering import answer_prompts
from reasondiff.models.load import read_info
from reasondiff.store import file_digest, write_table
from reasondiff.text.prompts import read_prompts

with job(snakemake) as log:
    params = snakemake.params
    infos = [read_info(path) for path in snakemake.input.models]
    prompts = read_prompts(snakemake.input.prompts)

    responses, accuracy = answer_prompts(
        infos, prompts, Prompts.model_validate(params.settings), params.device, params.dtype
    )

    log.info("%d responses to %d prompts", len(responses), len(prompts))
    card = {
        "models": {info.name: info.weights_digest for info in infos},
        "prompts": file_digest(snakemake.input.prompts),
        "settings": params.settings,
        "code": params.code,
    }
    write_table(snakemake.output.responses, responses, card)
    write_table(snakemake.output.accuracy, accuracy, card)
