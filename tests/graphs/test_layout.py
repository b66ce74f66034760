"""Does a drawing of a graph show its layers upwards and its positions side by side, no node upon another?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_graphs import made_up_graph

from reasondiff.graphs.graph import EMBEDDING, FEATURE, LOGIT, make_graph, no_graph
from reasondiff.graphs.layout import lay_out


def placed(graph, width=400.0, pitch=10.0):
    return lay_out(graph, np.nan_to_num(graph.influence), width, pitch, gap=20.0, thin=4.0)


def row_of_latents(count, position=0, **columns):
    """`count` latents of one cell over their embedding, under one logit; no edges."""
    kinds = [EMBEDDING, *[FEATURE] * count, LOGIT]
    nothing = np.full(count + 2, np.nan)
    nodes = {
        "kind": kinds, "layer": [-1, *[0] * count, 1], "position": [position] * (count + 2),
        "feature": [7, *range(count), 9], "activation": nothing, "influence": [0.5, *range(count), 0.0],
        "probability": nothing,
    }  # fmt: skip
    return make_graph((" a", " b"), {}, **{**nodes, **columns}, source=[], target=[], weight=[])


@pytest.fixture(scope="module")
def graph():
    return made_up_graph(seed=3, blocks=5, positions=7, features=60)


def test_later_layers_stand_higher_and_one_layer_within_its_row(graph):
    layout = placed(graph)
    rows = {row.layer: row for row in layout.rows}
    assert [row.layer for row in layout.rows] == [5, 4, 3, 2, 1, 0, -1]
    for node in range(graph.n_nodes):
        row = rows[int(graph.layer[node])]
        assert row.top < layout.y[node] < row.top + row.height
    tops = [row.top for row in layout.rows]
    assert tops == sorted(tops) and layout.height == pytest.approx(sum(row.height for row in layout.rows))


def test_a_position_is_a_column_of_its_own_and_columns_fill_the_width(graph):
    layout = placed(graph)
    columns = {column.position: column for column in layout.columns}
    for node in range(graph.n_nodes):
        column = columns[int(graph.position[node])]
        assert column.left < layout.x[node] < column.left + column.width
    assert sum(column.width for column in layout.columns) == pytest.approx(400)


def test_positions_without_nodes_have_no_column(graph):
    kept = graph.part(graph.position != 2, np.ones(graph.n_edges, dtype=bool))
    assert [column.position for column in placed(kept).columns] == [0, 1, 3, 4, 5, 6]


def test_a_layer_without_nodes_is_thin_but_there(graph):
    kept = graph.part(graph.layer != 2, np.ones(graph.n_edges, dtype=bool))
    rows = {row.layer: row for row in placed(kept).rows}
    assert rows[2].height == 4.0 and rows[2].lines == 0 and rows[1].lines > 0


@pytest.mark.parametrize("width", [400.0, 60.0])
def test_no_node_stands_upon_another(graph, width):
    layout = placed(graph, width)
    apart = np.hypot(layout.x[:, None] - layout.x, layout.y[:, None] - layout.y)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 0.99 * layout.pitch


def test_the_nodes_of_a_cell_stand_around_its_middle_the_most_influential_first():
    # three latents 10 apart in one column 400 wide: 190, 200, 210; influences 0, 1, 2, so the last one comes first
    layout = placed(row_of_latents(3))
    np.testing.assert_allclose(layout.x, [200, 210, 200, 190, 200])
    # rows from above, 10 + 20 high each: logit 0 to 30, latents 30 to 60, embedding 60 to 90
    np.testing.assert_allclose(layout.y, [75, 45, 45, 45, 15])


def test_a_cell_that_is_too_wide_goes_on_in_a_second_line():
    # 8.7 columns of nodes would need 87 of 60 at a pitch of 10; 5 and the gap of 0.7 fit
    layout = placed(row_of_latents(8), width=60.0)
    lines = np.unique(layout.y[1:9])
    assert len(lines) == 2 and lines[1] - lines[0] == pytest.approx(10) and layout.pitch == 10
    assert layout.rows[1].height == pytest.approx(2 * 10 + 20)
    assert lines.mean() == pytest.approx(layout.rows[1].middle)
    # 5 in the first line and 3 in the second, each around the middle of the column
    assert sorted(layout.x[1:9][layout.y[1:9] == lines[0]]) == pytest.approx([10, 20, 30, 40, 50])
    assert sorted(layout.x[1:9][layout.y[1:9] == lines[1]]) == pytest.approx([20, 30, 40])


def test_many_positions_are_drawn_nearer_to_one_another_rather_than_outside():
    wide = made_up_graph(seed=1, blocks=2, positions=60, features=10)
    layout = placed(wide)
    assert layout.pitch < 10 and layout.x.min() > 0 and layout.x.max() < 400


def test_a_graph_without_nodes_takes_no_room():
    layout = placed(no_graph((" a",), {}, "the response was cut off"))
    assert layout.columns == layout.rows == () and layout.height == 0


def test_the_order_of_equal_nodes_is_theirs_in_the_graph():
    graph = replace(row_of_latents(4), influence=np.zeros(6, dtype=np.float32))
    layout = placed(graph)
    assert (np.diff(layout.x[1:5]) > 0).all()
