"""Where in a drawing does each node of a graph stand?

Columns are positions and rows are layers, embeddings at the bottom and logits at the top. The nodes of one layer and
position stand side by side, the most influential first, and in several lines where they are many.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from reasondiff.graphs.graph import Graph

PER_LINE = (8, 6, 5, 4, 3, 2, 1)
GAP = 0.7
"""Free space beside the nodes of a column, in nodes."""


@dataclass(frozen=True)
class Column:
    """One position."""

    position: int
    left: float
    width: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


@dataclass(frozen=True)
class Row:
    """One layer; one without nodes is thin."""

    layer: int
    top: float
    height: float
    lines: int
    """Lines of nodes in its fullest cell; 0 where it has no nodes."""

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


@dataclass(frozen=True)
class Layout:
    """Places of nodes in a drawing, from its upper left corner, in the unit of the width that was given."""

    x: Float[np.ndarray, " node"]
    y: Float[np.ndarray, " node"]
    columns: tuple[Column, ...]
    """From left to right; only positions that have nodes."""
    rows: tuple[Row, ...]
    """From the top, where the logits are, down to the embeddings; without a gap between the lowest and the highest."""
    pitch: float
    """From one node of a line to the next."""
    height: float


def lay_out(
    graph: Graph, influence: Float[np.ndarray, " node"], width: float, pitch: float, gap: float, thin: float
) -> Layout:
    """The nodes of a graph in a drawing `width` wide: at most `pitch` apart, nearer where they would not fit else.

    `gap` is the free height of a row with nodes, `thin` the height of one without.
    """
    cells = _cells(graph, influence)
    most: dict[int, int] = defaultdict(int)
    for (_, position), nodes in cells.items():
        most[position] = max(most[position], len(nodes))
    per_line, fitting = _fitting(most, width, pitch)
    rows = _rows(graph, cells, per_line, fitting, gap, thin)
    columns = _columns(most, per_line, width)
    x, y = np.zeros(graph.n_nodes), np.zeros(graph.n_nodes)
    row_of, column_of = {row.layer: row for row in rows}, {column.position: column for column in columns}
    for (layer, position), nodes in cells.items():
        place = np.arange(len(nodes))
        line, in_line = place // per_line, np.minimum(per_line, len(nodes) - place // per_line * per_line)
        last = (len(nodes) - 1) // per_line
        x[nodes] = column_of[position].middle + (place % per_line - (in_line - 1) / 2) * fitting
        y[nodes] = row_of[layer].middle + (line - last / 2) * fitting
    height = rows[-1].top + rows[-1].height if rows else 0.0
    return Layout(x, y, columns, rows, fitting, height)


def _cells(graph: Graph, influence: Float[np.ndarray, " node"]) -> dict[tuple[int, int], list[int]]:
    """{(layer, position): nodes, the most influential first}."""
    found: dict[tuple[int, int], list[int]] = {}
    for node in np.argsort(-influence, kind="stable").tolist():
        found.setdefault((int(graph.layer[node]), int(graph.position[node])), []).append(node)
    return found


def _fitting(most: dict[int, int], width: float, pitch: float) -> tuple[int, float]:
    """(nodes in a line, pitch): as many in a line as fit at the wanted pitch, else one, as near as they must be."""
    for per_line in PER_LINE:
        fitting = width / max(sum(_slots(count, per_line) for count in most.values()), GAP)
        if fitting >= pitch:
            return per_line, pitch
    return per_line, fitting


def _slots(count: int, per_line: int) -> float:
    return min(count, per_line) + GAP


def _columns(most: dict[int, int], per_line: int, width: float) -> tuple[Column, ...]:
    """Columns as wide as their nodes need, stretched over the width."""
    needs = [(position, _slots(most[position], per_line)) for position in sorted(most)]
    unit, left, columns = width / max(sum(need for _, need in needs), GAP), 0.0, []
    for position, need in needs:
        columns.append(Column(position, left, need * unit))
        left += need * unit
    return tuple(columns)


def _rows(
    graph: Graph, cells: dict[tuple[int, int], list[int]], per_line: int, pitch: float, gap: float, thin: float
) -> tuple[Row, ...]:
    if not graph.n_nodes:
        return ()
    lines: dict[int, int] = defaultdict(int)
    for (layer, _), nodes in cells.items():
        lines[layer] = max(lines[layer], -(-len(nodes) // per_line))
    top, rows = 0.0, []
    for layer in range(int(graph.layer.max()), int(graph.layer.min()) - 1, -1):
        height = lines[layer] * pitch + gap if lines[layer] else thin
        rows.append(Row(layer, top, height, lines[layer]))
        top += height
    return tuple(rows)
