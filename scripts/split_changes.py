"""Graphs of the reasoning model and of the base with two seeds in; how they differ, in usage and in wiring, out."""

from pathlib import Path

from reasondiff.config import Comparisons
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.graphs.graph import read_graph
from reasondiff.graphs.split import TracedSubject, split_changes
from reasondiff.job import job
from reasondiff.store import file_digest, write_table

with job(snakemake) as log:
    given, params = snakemake.input, snakemake.params
    subjects = {}
    for side, name in params.subjects.items():  # graphs lie in <name>/<prompt>/<target>/graph.npz
        graphs = {Path(path).parts[-3:-1]: read_graph(path) for path in given[f"{side}_graphs"]}
        subjects[side] = TracedSubject(name, graphs, load_set(given[f"{side}_transcoders"], params.device))

    table = split_changes(
        subjects["reasoning"], subjects["base"], subjects.get("other_seed"), Comparisons.model_validate(params.settings)
    )

    log.info("%s", table.groupby(["comparison", "correspondence", "verdict"]).size().to_dict())
    card = {
        "subjects": params.subjects,
        "inputs": [file_digest(path) for path in given],
        "settings": params.settings,
        "code": params.code,
    }
    write_table(snakemake.output[0], table, card)
