"""Every graph of the study in; one row for each, and the latents that they use most, out."""

from reasondiff.config import GraphGates, Graphs
from reasondiff.graphs.graph import read_graph
from reasondiff.graphs.pruning import prune
from reasondiff.graphs.summary import latents_of_graphs, summarise
from reasondiff.job import job
from reasondiff.store import file_digest, write_table

with job(snakemake) as log:
    paths, params = list(snakemake.input.graphs), snakemake.params
    settings = Graphs.model_validate(params.settings)
    pruned = [prune(read_graph(path), settings.prune_nodes, settings.prune_edges) for path in paths]

    summary = summarise(pruned, GraphGates.model_validate(params.gates))
    latents = latents_of_graphs(pruned)

    log.info("%s; %d explain", summary["status"].value_counts().to_dict(), int((summary["explains"] == True).sum()))  # noqa: E712
    card = {
        "graphs": [file_digest(path) for path in paths],
        "settings": {name: params.settings[name] for name in ("prune_nodes", "prune_edges")},
        "gates": params.gates,
        "code": params.code,
    }
    write_table(snakemake.output.summary, summary, card)
    write_table(snakemake.output.latents, latents, card)
