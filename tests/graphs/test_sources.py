"""Which attribution graphs does a folder of JSON files hold?"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_graphs import made_up_graph

from reasondiff.graphs.exchange import to_neuronpedia
from reasondiff.graphs.sources import read_file, read_folder
from reasondiff.store import ArtefactError, write_json


@pytest.fixture
def folder(tmp_path):
    """Two graphs, and circuit-tracer's list of them."""
    for name, seed in (("snail", 2), ("dallas", 1)):
        write_json(tmp_path / f"{name}.json", to_neuronpedia(made_up_graph(seed), {}, name, "a-model"), {"made": "up"})
    (tmp_path / "graph-metadata.json").write_text('{"graphs": []}')
    (tmp_path / "notes.txt").write_text("not a graph")
    return tmp_path


def test_graphs_come_by_name_in_order(folder):
    graphs = read_folder(folder)
    assert list(graphs) == ["dallas", "snail"]
    assert graphs["snail"].n_edges == made_up_graph(2).n_edges
    assert graphs["dallas"].facts == made_up_graph(1).facts


@pytest.mark.parametrize(
    "data, said",
    [
        (b'{"nodes": [', "is not JSON .*; export or download it again"),
        (b"\xff\xfe", "is not JSON"),
        (b"", "is not JSON"),
        (b"[1, 2]", "is not Neuronpedia's graph JSON"),
        (b'{"metadata": {}}', r"metadata.slug: Field required \(and 6 more\)"),
        (pickle.dumps({"input_string": "a"}), "unpickling runs whatever code is in the file.*create_graph_files"),
        (b"PK\x03\x04archive/data.pkl", "unpickling runs whatever code is in the file"),
    ],
)
def test_a_bad_file_is_named(folder, data, said):
    (folder / "later.json").write_bytes(data)
    with pytest.raises(ArtefactError, match=said) as refused:
        read_folder(folder)
    assert str(folder / "later.json") in str(refused.value)


def test_pickled_graphs_are_refused_unless_their_json_is_there(folder):
    (folder / "dallas.pt").write_bytes(b"PK\x03\x04")
    assert len(read_folder(folder)) == 2
    (folder / "other.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ArtefactError, match="other.pt is a graph as circuit-tracer pickles it"):
        read_folder(folder)


def test_a_folder_without_graphs_is_refused(tmp_path):
    (tmp_path / "graph-metadata.json").write_text('{"graphs": []}')
    with pytest.raises(ArtefactError, match="holds no .json file: put Neuronpedia's graph JSON there"):
        read_folder(tmp_path)
    with pytest.raises(ArtefactError, match="nowhere is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(ArtefactError, match="nothing.json is missing"):
        read_file(tmp_path / "nothing.json")


def test_a_folder_of_published_graphs_is_read():
    folder = os.environ.get("REASONDIFF_GRAPHS")
    if not folder:
        pytest.skip("REASONDIFF_GRAPHS names no folder of published graphs")
    graph = read_folder(folder)["capital-state-dallas"]
    assert (graph.n_nodes, graph.n_edges) == (94, 2205)
    assert (
        json.loads((Path(folder) / "capital-state-dallas.json").read_text())["metadata"]["slug"] == graph.facts["slug"]
    )


def test_graphs_are_read_and_pruned_without_torch():
    modules = ("influence", "pruning", "exchange", "sources", "summary")
    code = "import sys; " + "; ".join(f"import reasondiff.graphs.{name}" for name in modules)
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    heavy = "'torch', 'transformers', 'circuit_tracer', 'numba'"
    check = f"{code}; print([name for name in ({heavy}) if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", check], env={**os.environ, "PYTHONPATH": str(scripts)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert run.stdout.strip() == "[]"
