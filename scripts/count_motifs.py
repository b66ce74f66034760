"""Attribution graphs in, our own files or a folder of JSON from elsewhere; their motifs beside null models out."""

from pathlib import Path

from reasondiff.config import Motifs
from reasondiff.graphs.graph import read_graph
from reasondiff.graphs.sources import read_folder
from reasondiff.job import job
from reasondiff.motifs.counting import count_motifs
from reasondiff.store import file_digest, write_table

with job(snakemake) as log:
    params, folder = snakemake.params, snakemake.params.get("folder")
    if folder:
        graphs = read_folder(folder)
        files = {name: Path(folder) / f"{name}.json" for name in graphs}
    else:
        paths = [Path(path) for path in snakemake.input.graphs]
        files = {"/".join(path.parts[-3:-1]): path for path in paths}  # prompt/target
        graphs = {name: read_graph(path) for name, path in files.items()}
    settings = Motifs.model_validate(params.settings)

    motifs = count_motifs(graphs, settings, params.source, settings.seed, snakemake.threads)

    log.info("%d graphs, %d rows", len(graphs), len(motifs))
    card = {
        "source": params.source,
        "graphs": {name: file_digest(path) for name, path in files.items()},
        "settings": params.settings,
        "code": params.code,
    }
    write_table(snakemake.output.motifs, motifs, card)
