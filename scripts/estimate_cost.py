"""A study in, what each of its stages is reckoned to cost out."""

import pandas as pd

from reasondiff.config import ModelSize, Study
from reasondiff.costs.table import COLUMNS, reckon
from reasondiff.job import job
from reasondiff.store import write_table

with job(snakemake) as log:
    params = snakemake.params
    study = Study.model_validate(params.study)
    sizes = {name: size and ModelSize.model_validate(size) for name, size in params.sizes.items()}

    table = pd.DataFrame(reckon(study, sizes, params.prompts), columns=COLUMNS)

    log.info("%s", table.iloc[-1].to_dict())
    write_table(snakemake.output[0], table, {"study": study.study, "cost": params.study["cost"], "code": params.code})
