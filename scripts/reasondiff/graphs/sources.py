"""Which attribution graphs does a folder of JSON files hold?"""

from __future__ import annotations

import json
from pathlib import Path

from reasondiff.graphs.exchange import from_neuronpedia
from reasondiff.graphs.graph import Graph
from reasondiff.store import ArtefactError

INDEX = "graph-metadata.json"
"""circuit-tracer's list of the graphs in a folder, which is none itself."""
PICKLES = (b"PK\x03\x04", b"\x80")


def read_folder(folder: str | Path) -> dict[str, Graph]:
    """The graphs of a folder by their files' names without `.json`, in the order of these.

    Raises:
        ArtefactError: the folder is missing or holds no JSON, or one of its files is no graph; the file is named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is no folder: expected one with attribution graphs as JSON; correct the path")
    files = sorted(path for path in folder.glob("*.json") if path.name != INDEX)
    if pickles := sorted(path for path in folder.glob("*.pt") if path.with_suffix(".json") not in files):
        raise ArtefactError(_pickled(pickles[0]))
    if not files:
        raise ArtefactError(f"{folder} holds no .json file: put Neuronpedia's graph JSON there, or correct the path")
    return {path.stem: read_file(path) for path in files}


def read_file(path: str | Path) -> Graph:
    """The graph of one file.

    Raises:
        ArtefactError: it is missing, a pickle, no JSON, or no graph.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtefactError(f"{path} is missing: correct the path")
    data = path.read_bytes()
    if data.startswith(PICKLES):
        raise ArtefactError(_pickled(path))
    try:
        content = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ArtefactError(f"{path} is not JSON ({error}); export or download it again") from error
    return from_neuronpedia(content, str(path))


def _pickled(path: Path) -> str:
    return (
        f"{path} is a graph as circuit-tracer pickles it; unpickling runs whatever code is in the file, so it is not "
        "read. Make JSON of it with circuit-tracer (`create_graph_files`) and put that into the folder"
    )
