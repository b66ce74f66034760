"""Text sources in, documents with their parts and the held-out problems out."""

from reasondiff.config import Split, Text
from reasondiff.job import job
from reasondiff.revisions import refuse_unpinned
from reasondiff.store import write_table
from reasondiff.text.preparation import held_out_problems, prepare_text
from reasondiff.text.sources import at_commits

with job(snakemake) as log:
    refuse_unpinned(snakemake.params.without_commit)
    text = at_commits(Text.model_validate(snakemake.params.text))
    split = Split.model_validate(snakemake.params.split)

    documents = prepare_text(text, split)
    problems = held_out_problems(documents, text.prefix)
    log.info("%d documents, %d held-out problems with an answer", len(documents), len(problems))

    card = {"text": text.model_dump(mode="json"), "split": snakemake.params.split, "code": snakemake.params.code}
    write_table(snakemake.output.documents, documents, card)
    write_table(snakemake.output.problems, problems, card)
