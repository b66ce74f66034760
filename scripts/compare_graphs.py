"""Every graph, its motifs and its links in; the four comparisons, and motifs by source and phase, out."""

from pathlib import Path

import pandas as pd

from reasondiff.config import Comparisons, GraphGates, Graphs, Prompts
from reasondiff.graphs.graph import read_graph
from reasondiff.graphs.pruning import prune
from reasondiff.graphs.sources import read_folder
from reasondiff.job import job
from reasondiff.motifs.comparison import compare_graphs
from reasondiff.motifs.measures import facts_of_graphs, measure_graphs, summary_elsewhere
from reasondiff.motifs.profiles import profiles
from reasondiff.store import file_digest, read_table, write_table

with job(snakemake) as log:
    files, params = snakemake.input, snakemake.params
    settings, of_graphs = Comparisons.model_validate(params.settings), Graphs.model_validate(params.graphs)
    summary, motifs = read_table(files.summary), pd.concat(map(read_table, files.motifs), ignore_index=True)
    links = {"/".join(Path(path).parts[-3:-1]): read_table(path) for path in files.links}  # model/seed
    pruned = [prune(read_graph(path), of_graphs.prune_nodes, of_graphs.prune_edges) for path in files.graphs]
    if params.published:
        graphs, source = read_folder(params.published), f"published/{settings.published}"
        elsewhere = summary_elsewhere(graphs, source, of_graphs, GraphGates.model_validate(params.gates))
        summary = pd.concat([summary, elsewhere], ignore_index=True)

    measured = measure_graphs(summary, motifs, facts_of_graphs(pruned, links), tuple(params.threshold))
    prompts = Prompts.model_validate(params.prompts)
    tables = compare_graphs(measured, prompts, settings, read_table(files.responses))
    by_phase = profiles(motifs, settings.bootstrap, settings.seed)

    read = [files.summary, files.responses, *files.motifs, *files.links, *files.graphs]
    card = {
        "read": [file_digest(path) for path in read],
        "settings": params.settings,
        "asked": [params.prompts, params.graphs, params.gates, params.threshold, params.published],
        "code": params.code,
    }
    for path in snakemake.output.comparisons:
        table = tables[Path(path).stem]
        log.info("%s: %s", path, table["verdict"].value_counts().to_dict())
        write_table(path, table, card)
    write_table(snakemake.output.profiles, by_phase, card)
