"""The study in, everything that it takes from elsewhere on this machine and a table of it out."""

from reasondiff.config import Study
from reasondiff.inputs import fetch_inputs
from reasondiff.job import job
from reasondiff.revisions import refuse_unpinned
from reasondiff.store import write_table

with job(snakemake):
    refuse_unpinned(snakemake.params.without_commit)
    table = fetch_inputs(Study.model_validate(snakemake.params.study), snakemake.params.prompts)

    card = {"inputs": table[["key", "revision"]].to_dict("records"), "code": snakemake.params.code}
    write_table(snakemake.output[0], table, card)
    print(table.to_string(index=False))
