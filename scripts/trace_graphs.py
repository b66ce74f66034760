"""A model, its transcoders and targets in; each target's graph, interventions that test it, and costs out."""

from pathlib import Path

from reasondiff.config import Graphs
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.graphs.targets import read_targets
from reasondiff.graphs.tracing import Files, Subject, select_targets, trace_all
from reasondiff.job import job
from reasondiff.models.load import read_info
from reasondiff.store import file_digest, read_table, write_table

with job(snakemake):
    params, given, output = snakemake.params, snakemake.input, snakemake.output
    paths = list(given.transcoders)
    subject = Subject(
        info=read_info(given.model),
        seed=params.seed,
        transcoders=load_set(paths, params.device),
        digests=tuple(file_digest(path) for path in paths),
        first_positions=params.first_positions,
        device=params.device,
    )
    targets = select_targets(read_targets(given.targets), params.traced)
    files = [Files(*pair) for pair in zip(output.graphs, output.interventions, strict=True)]
    before = read_table(output.costs) if Path(output.costs).exists() else None

    costs = trace_all(subject, targets, files, Graphs.model_validate(params.settings), params.code, before)

    card = {"model": subject.info.weights_digest, "seed": params.seed, "traced": params.traced, "code": params.code}
    write_table(output.costs, costs, card)
