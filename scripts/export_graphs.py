"""Graphs of one model and labels of its transcoders in; each pruned graph as JSON for viewers and as a figure out."""

from reasondiff.config import Graphs
from reasondiff.graphs.drawing import draw
from reasondiff.graphs.exchange import labels_of, slug_and_scan, to_neuronpedia
from reasondiff.graphs.graph import read_graph
from reasondiff.graphs.pruning import prune
from reasondiff.job import job
from reasondiff.store import file_digest, read_json, write_json, write_text

with job(snakemake) as log:
    paths, params = snakemake.input, snakemake.params
    settings = Graphs.model_validate(params.settings)
    labels = labels_of([read_json(path) for path in paths.labels])
    shares = {"prune_nodes": settings.prune_nodes, "prune_edges": settings.prune_edges}
    card = {"labels": [file_digest(path) for path in paths.labels], **shares, "code": params.code}

    for source, content, figure in zip(paths.graphs, snakemake.output.json, snakemake.output.svg, strict=True):
        stored = read_graph(source)
        pruned = prune(stored, settings.prune_nodes, settings.prune_edges)
        log.info("%s: %d of %d nodes, %d edges", source, pruned.n_nodes, stored.n_nodes, pruned.n_edges)
        exported = to_neuronpedia(pruned, labels, *slug_and_scan(stored), stored)
        write_json(content, exported, {"graph": file_digest(source), **card})
        write_text(figure, draw(pruned, labels))
