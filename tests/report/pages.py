"""Pages of made-up tables, and what is on them."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

from reasondiff.report.all_figures import draw
from reasondiff.report.circuit_tables import figures_of_circuits
from reasondiff.report.drawing import styled, to_bytes
from reasondiff.report.page import render, write_page
from reasondiff.report.sites import figures_of

SITE = "base-distill/traces/layer3"
FACTS = [{"rule": "train", "seconds": 3.0, "peak_memory_gib": 0.5, "python": "3.11", "versions": {"numpy": "2.4"}}]


def figures_on(study) -> dict[str, tuple[str, str]]:
    """{name: (kind, site)} of the figures on the pages."""
    parts = (part is not None for part in (study.graphs, study.motifs, study.comparisons))
    named = figures_of(study.pairs, [SITE], [SITE], study.transcoders, has_concepts=True)
    return {**named, **figures_of_circuits(*parts)}


def page_of(study, tables, facts=FACTS) -> str:
    svgs = {}
    for name, (kind, site) in figures_on(study).items():
        with styled(name):
            svgs[name] = to_bytes(draw(kind, site, study, tables), "svg").decode()
    return write_page(study, tables, svgs, facts, "0123abcd", {"study": study.study}).report


class Tags(HTMLParser):
    """Collects ids, what the page would fetch, and tags left open."""

    VOID = {"meta", "link", "br", "img", "path", "use", "rect", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.fetched, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.fetched += [value for name, value in attributes if name in ("src", "srcset", "data", "action") and value]
        if tag in ("link", "a", "image", "use"):
            self.fetched += [found.get("href") or found.get("xlink:href") or ""]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"


def words_of(*sections) -> str:
    """What some sections say, without markup, each run of white space as one space."""
    page = render("", None, list(sections), {})
    said = html.unescape(re.sub(r"<[^>]+>", " ", page[page.index("<main>") : page.index("</main>")]))
    return re.sub(r"\s+", " ", said)
