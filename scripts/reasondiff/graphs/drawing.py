"""What does an attribution graph look like as a figure in a paper?

An SVG as wide as a column of text: layers upwards, tokens from left to right, the strongest edges, numbers at the most
influential latents and their labels below. Drawn without matplotlib, some milliseconds each.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float

from reasondiff.graphs.exchange import Labels, logit_token
from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, LOGIT, NO_FEATURE, Graph
from reasondiff.graphs.layout import Layout, lay_out
from reasondiff.graphs.pruning import ranked

WIDTH = 400.0
MARGIN, AXIS = 6.0, 26.0
"""Free space at the edges, and room for the layers' names, in the figure's units (400 to its width)."""
TEXT, SMALL = 9.0, 7.6
PITCH, THIN = 11.0, 5.0
ROWS_HEIGHT, LEAST_GAP, MOST_GAP = 270.0, 6.0, 15.0
"""Free height of all rows together, and of each at least and at most."""
RADIUS, NUMBERED = 3.6, 5.6
MOST_EDGES, MOST_LATENTS, MOST_TOKENS = 400, 12, 28
"""Edges that are drawn; latents that have room to be named; tokens that can be read side by side."""
FULL = 0.99
"""Quantile of |weight| from which on an edge is drawn at full strength."""
LETTER = 0.57
"""Width of a letter over the size of its type, about."""
ADDS, TAKES = "#0072B2", "#D55E00"
INK, QUIET, LINE, STRIPE = "#1c2126", "#5b6470", "#dfe3e8", "#f6f8fa"
LIGHT, DARK = (236, 240, 244), (32, 52, 74)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_VISIBLE = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_NOT_XML = re.compile("[^\x09\x0a\x0d\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw(graph: Graph, labels: Labels, max_latents: int = MOST_LATENTS) -> str:
    """A figure of a pruned graph as an SVG text; equal graphs give equal bytes.

    Of the edges at most `MOST_EDGES` are drawn, the strongest, and of tokens that hold nothing but their embedding
    those with most influence, so that `MOST_TOKENS` are drawn; the caption says how many are not. The `max_latents`
    most influential latents are numbered, and listed with their label, layer and tokens. A graph without nodes gives a
    small figure that says why.
    """
    if not graph.n_nodes:
        return _nothing(graph)
    whole, graph = graph, _legible(graph)
    influence = ranked(graph).influence
    gap = min(MOST_GAP, max(LEAST_GAP, ROWS_HEIGHT / len(np.unique(graph.layer))))
    layout = lay_out(graph, influence, WIDTH - 2 * MARGIN - AXIS, PITCH, gap, THIN)
    numbers = _numbered(graph, influence, max_latents)
    drawing = ElementTree.Element("g", transform=f"translate({MARGIN + AXIS:.0f} {MARGIN:.0f})")
    bottom = MARGIN + layout.height + _axes(drawing, graph, layout)
    n_edges = _edges(drawing, graph, layout)
    _nodes(drawing, graph, layout, influence, numbers)
    words = ElementTree.Element("g")
    bottom = _legend(words, bottom + 12)
    bottom = _key(words, graph, labels, numbers, bottom + 6)
    bottom = _paragraph(words, _caption(whole, n_edges, len(layout.columns)), bottom + 8)
    return _figure(graph, bottom + MARGIN, [drawing, words])


def _legible(graph: Graph) -> Graph:
    """The graph without the least influential of the embeddings that stand alone at their position."""
    others = np.unique(graph.position[graph.kind != EMBEDDING])
    alone = np.flatnonzero((graph.kind == EMBEDDING) & ~np.isin(graph.position, others))
    strongest_first = alone[np.argsort(-ranked(graph).influence[alone], kind="stable")]
    kept = np.ones(graph.n_nodes, dtype=bool)
    kept[strongest_first[max(0, MOST_TOKENS - len(others)) :]] = False
    return graph.part(kept, np.ones(graph.n_edges, dtype=bool))


# ------------------------------------------------------------------------------------------------ parts of the figure


@dataclass(frozen=True)
class Numbered:
    """A latent that the figure names."""

    number: int
    layer: int
    latent: int
    nodes: tuple[int, ...]


def _numbered(graph: Graph, influence: Float[np.ndarray, " node"], most: int) -> list[Numbered]:
    """The latents of the most influential nodes, each once, with all nodes it has in the graph."""
    nodes_of: dict[tuple[int, int], list[int]] = {}
    for node in np.argsort(-influence, kind="stable"):
        if graph.kind[node] == FEATURE:
            nodes_of.setdefault((int(graph.layer[node]), int(graph.feature[node])), []).append(int(node))
    first = list(nodes_of.items())[:most]
    return [Numbered(place, *key, tuple(nodes)) for place, (key, nodes) in enumerate(first, start=1)]


def _axes(parent: ElementTree.Element, graph: Graph, layout: Layout) -> float:
    """Stripes, tokens and layers; the height that the tokens take below the nodes."""
    for number, column in enumerate(layout.columns):
        if number % 2 == 0:
            _add(parent, "rect", x=column.left, y=0, width=column.width, height=layout.height, fill=STRIPE)
    words = [_shortened(_token(graph, column.position), 16) for column in layout.columns]
    fits = all(_width(word, SMALL) < column.width for word, column in zip(words, layout.columns, strict=True))
    for word, column in zip(words, layout.columns, strict=True):
        size = SMALL if fits else min(SMALL, column.width)
        x, y = column.middle, layout.height + (9.0 if fits else 3.0)
        if fits:
            _text(parent, word, x, y, size, **{"text-anchor": "middle"})
        else:
            _text(parent, word, 0.0, 0.0, size, transform=f"translate({x - size / 3:.1f} {y:.1f}) rotate(90)")
    _layers(parent, graph, layout)
    return 14.0 if fits else 6.0 + max((_width(word, SMALL) for word in words), default=0.0)


def _layers(parent: ElementTree.Element, graph: Graph, layout: Layout) -> None:
    """Names of layers, as many as there is room for."""
    logits = int(graph.layer[graph.nodes_of(LOGIT)].max(initial=-2))
    last = -np.inf
    for row in layout.rows:
        if row.lines and row.middle - last >= SMALL:
            said = {-1: "emb.", logits: "next"}.get(row.layer, str(row.layer))
            _text(parent, said, -5.0, row.middle + SMALL / 3, SMALL, fill=QUIET, **{"text-anchor": "end"})
            last = row.middle


def _edges(parent: ElementTree.Element, graph: Graph, layout: Layout) -> int:
    """The strongest edges, weaker ones below; how many were drawn."""
    size = np.abs(graph.weight.astype(np.float64))
    drawn = np.argsort(-size, kind="stable")[:MOST_EDGES][::-1]
    full = float(np.quantile(size, FULL)) if len(size) else 1.0
    ink = min(1.0, (120 / max(1, len(drawn))) ** 0.4)
    group = ElementTree.SubElement(parent, "g", fill="none")
    for edge in drawn.tolist():
        strength = min(1.0, size[edge] / (full or 1.0)) ** 0.8
        adds = graph.weight[edge] > 0
        look = {"stroke": ADDS} if adds else {"stroke": TAKES, "stroke-dasharray": "3 1.5"}
        style = {"stroke-width": 0.35 + 1.5 * strength, "stroke-opacity": ink * (0.16 + 0.7 * strength)}
        _add(group, "path", d=_curve(layout, int(graph.source[edge]), int(graph.target[edge])), **look, **style)
    return len(drawn)


def _curve(layout: Layout, source: int, target: int) -> str:
    """Leaves its source upwards and enters its target from below."""
    x0, y0, x1, y1 = layout.x[source], layout.y[source] - RADIUS, layout.x[target], layout.y[target] + RADIUS
    bend = max(6.0, 0.42 * abs(y0 - y1))
    return f"M{x0:.1f} {y0:.1f}C{x0:.1f} {y0 - bend:.1f} {x1:.1f} {y1 + bend:.1f} {x1:.1f} {y1:.1f}"


def _nodes(
    parent: ElementTree.Element,
    graph: Graph,
    layout: Layout,
    influence: Float[np.ndarray, " node"],
    numbers: list[Numbered],
) -> None:
    """Shapes by kind, numbered latents on top; latents are darker with more influence, the explained token is black."""
    number_of = {node: one.number for one in numbers for node in one.nodes}
    most = float(influence[graph.kind == FEATURE].max(initial=0.0)) or 1.0
    size, explained = min(RADIUS, 0.44 * layout.pitch), _explained(graph)
    for node in sorted(range(graph.n_nodes), key=lambda node: (node in number_of, node)):
        x, y, number = float(layout.x[node]), float(layout.y[node]), number_of.get(node)
        depth = float(np.sqrt(influence[node] / most)) if graph.kind[node] == FEATURE else float(node == explained)
        _shape(parent, int(graph.kind[node]), x, y, size if number is None else NUMBERED, depth)
        if number is not None:
            colour = "#fff" if depth > 0.45 else INK
            look = {"text-anchor": "middle", "font-weight": "600", "fill": colour}
            _text(parent, str(number), x, y + 2.6, SMALL - 0.4, **look)


def _shape(parent: ElementTree.Element, kind: int, x: float, y: float, size: float, depth: float) -> None:
    line = {"stroke": "#4a5662", "stroke-width": 0.8}
    if kind == FEATURE:
        _add(parent, "circle", cx=x, cy=y, r=size, fill=_shade(depth), **line)
    elif kind == ERROR:
        path = f"M{x:.1f} {y - size:.1f}l{size:.1f} {size:.1f} {-size:.1f} {size:.1f} {-size:.1f} {-size:.1f}Z"
        _add(parent, "path", d=path, fill="#eceef1", stroke="#8a929c", **{"stroke-width": 0.7})
    elif kind == EMBEDDING:
        half = size * 0.9
        _add(parent, "rect", x=x - half, y=y - half, width=2 * half, height=2 * half, fill="#fff", **line)
    else:
        path = f"M{x:.1f} {y - size * 1.2:.1f}l{size * 1.2:.1f} {size * 2.1:.1f}H{x - size * 1.2:.1f}Z"
        _add(parent, "path", d=path, fill=INK if depth else "#fff", **line)


def _shade(depth: float) -> str:
    """From near white at 0 to dark slate at 1."""
    parts = (round(light + (dark - light) * min(1.0, depth)) for light, dark in zip(LIGHT, DARK, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _legend(parent: ElementTree.Element, top: float) -> float:
    x = float(MARGIN)
    for kind, words in ((FEATURE, "latent"), (ERROR, "error"), (EMBEDDING, "embedding"), (LOGIT, "next token")):
        _shape(parent, kind, x + RADIUS, top - 2.8, RADIUS, depth=0.5)
        x = _legend_words(parent, words, x + 11, top)
    for colour, dashes, words in ((ADDS, "none", "adds"), (TAKES, "3 1.5", "takes away")):
        line = {"stroke": colour, "stroke-width": 1.6, "stroke-dasharray": dashes}
        _add(parent, "line", x1=x, x2=x + 15, y1=top - 2.8, y2=top - 2.8, **line)
        x = _legend_words(parent, words, x + 19, top)
    return top + 3


def _legend_words(parent: ElementTree.Element, words: str, x: float, y: float) -> float:
    _text(parent, words, x, y, SMALL, fill=QUIET)
    return x + _width(words, SMALL) + 9


def _key(parent: ElementTree.Element, graph: Graph, labels: Labels, numbers: list[Numbered], top: float) -> float:
    """Number, label, layer and tokens of the numbered latents in two columns; the height at which it ends."""
    width, half = (WIDTH - 2 * MARGIN) / 2, -(-len(numbers) // 2)
    ends = [top]
    for column, some in enumerate((numbers[:half], numbers[half:])):
        y = top
        for one in some:
            x = MARGIN + column * width
            _text(parent, str(one.number), x + 10, y + TEXT, SMALL, **{"text-anchor": "end", "font-weight": "600"})
            for line in _lines(_said(graph, labels, one), width - 20, TEXT - 0.6, most=3):
                y += TEXT + 1.2
                _text(parent, line, x + 14, y, TEXT - 0.6)
            y += 1.5
        ends.append(y)
    return max(ends)


def _said(graph: Graph, labels: Labels, one: Numbered) -> str:
    label = labels.get((one.layer, one.latent)) or f"latent {one.latent}"
    tokens = list(dict.fromkeys(f"“{_token(graph, int(graph.position[node]))}”" for node in one.nodes))
    more = f" and {len(tokens) - 2} more" if len(tokens) > 2 else ""
    return f"layer {one.layer}, {', '.join(tokens[:2])}{more}: {_visible(label)}"  # a long label is cut at its end


def _caption(graph: Graph, n_edges: int, n_tokens: int) -> str:
    """Whose graph of what, and how much of it is drawn; what is not known is left out."""
    facts = graph.facts
    drawn = (
        f"{n_edges:,} of {graph.n_edges:,} edges, the strongest" if n_edges < graph.n_edges else f"{n_edges:,} edges"
    )
    all_tokens = len(np.unique(graph.position))
    tokens = f", {n_tokens} of {all_tokens} tokens" if n_tokens < all_tokens else ""
    parts = [
        _known(facts, "model") + (f", seed {facts['seed']}" if facts.get("seed") is not None else ""),
        _known(facts, "prompt_id", "prompt "),
        _known(facts, "target", "target "),
        _next_token(graph),
        _known(facts, "features", "latents traced: "),
        f"drawn: {len(graph.nodes_of(FEATURE)):,} latents, {drawn}{tokens}",
        _known(facts, "feature_share", "feature share "),
    ]
    return "; ".join(part for part in parts if part) + "."


def _known(facts: Mapping[str, Any], name: str, before: str = "") -> str:
    value = facts.get(name)
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return f"{before}{value:.2f}" if isinstance(value, float) else f"{before}{_visible(str(value))}"


def _next_token(graph: Graph) -> str:
    """The token that the graph explains, and how likely the model finds it."""
    if (node := _explained(graph)) < 0:
        return ""
    known = graph.facts.get("target_token")
    token = known if known is not None else logit_token(graph, int(graph.feature[node]))
    return f"next token “{_visible(token)}”, p = {graph.probability[node]:.2f}"


def _explained(graph: Graph) -> int:
    """The logit of the target, else the likeliest one; -1 without logits."""
    logits = graph.nodes_of(LOGIT)
    named = logits[graph.feature[logits] == graph.facts.get("target_id", NO_FEATURE)]
    likeliest = logits[np.argsort(-np.nan_to_num(graph.probability[logits]), kind="stable")]
    return int(next(iter([*named, *likeliest]), -1))


# ------------------------------------------------------------------------------------------------ the frame


def _nothing(graph: Graph) -> str:
    words = ElementTree.Element("g")
    facts, reason = graph.facts, graph.facts.get("reason") or "it has no nodes"
    whose = ", ".join(part for part in (_known(facts, name) for name in ("model", "prompt_id", "target")) if part)
    bottom = _paragraph(words, f"No graph{f' of {whose}' if whose else ''}: {_visible(str(reason))}.", MARGIN)
    return _figure(graph, bottom + MARGIN, [words])


def _figure(graph: Graph, height: float, parts: list[ElementTree.Element]) -> str:
    size = {"width": f"{WIDTH:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {WIDTH:.0f} {height:.0f}"}
    look = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "font-family": FONT}
    figure = ElementTree.Element("svg", {**look, **size})
    known = [_known(graph.facts, name) for name in ("model", "prompt_id", "target")]
    ElementTree.SubElement(figure, "title").text = _legal("Attribution graph " + ", ".join(filter(None, known)))
    _add(figure, "rect", width=WIDTH, height=height, fill="#fff")
    figure.extend(parts)
    return ElementTree.tostring(figure, encoding="unicode") + "\n"


def _paragraph(parent: ElementTree.Element, text: str, top: float) -> float:
    for line in _lines(text, WIDTH - 2 * MARGIN, TEXT, most=8):
        top += TEXT + 2.5
        _text(parent, line, MARGIN, top, TEXT)
    return top


def _lines(text: str, width: float, size: float, most: int) -> list[str]:
    return textwrap.wrap(text, int(width / (LETTER * size)), max_lines=most, placeholder=" …")


def _text(parent: ElementTree.Element, words: str, x: float, y: float, size: float, **look: Any) -> None:
    look = {"fill": INK, "font-size": size, **look}
    _add(parent, "text", x=x, y=y, **look).text = _legal(words)


def _add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    """Numbers with at most two decimals."""
    return ElementTree.SubElement(parent, tag, {key: _plain(value) for key, value in attributes.items()})


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _width(words: str, size: float) -> float:
    return LETTER * size * len(words)


def _shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _token(graph: Graph, position: int) -> str:
    """The string of a position with white space made visible, without that before and after words."""
    words = _visible(graph.tokens[position]) if position < len(graph.tokens) else "?"
    return words.strip() or "␣" * len(words) or "∅"


def _visible(text: str) -> str:
    return "".join(_VISIBLE.get(letter, letter) for letter in text)


def _legal(text: str) -> str:
    """Text without the letters that XML does not know, which some tokens hold."""
    return _NOT_XML.sub("\ufffd", text)
