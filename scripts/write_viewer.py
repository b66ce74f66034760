"""Attribution graphs as JSON, what is known of them and of their latents in; the page to walk through them out."""

from pathlib import Path

from reasondiff.graphs.exchange import labels_of
from reasondiff.graphs.viewer import (
    graph_name,
    graph_script,
    index_row,
    latents_in,
    latents_script,
    latents_shown,
    page,
    subject_of,
    subject_of_set,
    summary_rows,
)
from reasondiff.job import job
from reasondiff.latents.example_table import read_examples
from reasondiff.store import file_digest, read_json, read_table, write_text

with job(snakemake) as log:
    paths, params, data = snakemake.input, snakemake.params, Path(snakemake.output.data)
    summaries = summary_rows(read_table(paths.summary))
    sets = {subject_of_set(one): (one, other) for one, other in zip(paths.labels, paths.examples, strict=True)}

    index, wanted = [], {subject: set() for subject in sets}
    for path in paths.graphs:  # one after the other: all of them would not fit into memory
        name, content = graph_name(path), read_json(path)
        subject = subject_of(name)
        index.append(index_row(name, content, summaries, subject if subject in sets else None))
        wanted.get(subject, set()).update(latents_in(content))
        write_text(data / f"{name}.js", graph_script(name, content))

    for subject, (labels, examples) in sets.items():
        passages = read_examples(examples, wanted[subject], parts=["choose"], kinds=["strongest"])
        words = labels_of([read_json(labels)])
        shown = latents_shown(wanted[subject], words, passages, params.settings["viewer_examples"])
        write_text(data / f"latents_{subject}.js", latents_script(subject, shown))

    given = {name: [file_digest(path) for path in paths[name]] for name in ("labels", "examples")}
    card = {"summary": file_digest(paths.summary), **given, "settings": params.settings, "code": params.code}
    write_text(snakemake.output.page, page(index, card))
    log.info("%d graphs; latents of %s", len(index), ", ".join(sets) or "no subject")
