"""How do the sections become one page that opens from disk?"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reasondiff.policy import policy
from reasondiff.report import (
    browser_sections,
    circuit_sections,
    concept_sections,
    effect_sections,
    gate_sections,
    label_sections,
    latent_sections,
    model_sections,
    study_sections,
    transcoder_sections,
)
from reasondiff.report.blocks import Figure, Section
from reasondiff.report.captions import captions
from reasondiff.report.circuit_captions import circuit_captions
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.label_captions import label_captions
from reasondiff.report.latent_pages import LIMIT_BYTES, Browsed
from reasondiff.report.transcoder_captions import transcoder_captions
from reasondiff.store import as_script

TEMPLATE_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Pages:
    """The report, and the pages of the folder beside it by file name (an index at least)."""

    report: str
    beside: Mapping[str, str]


def write_page(
    study: StudyParts,
    tables: StudyTables,
    svgs: Mapping[str, str],
    facts: list[Mapping[str, Any]],
    config_digest: str,
    card: Mapping[str, Any],
    dictionaries: Sequence[Browsed] = (),
    limit_bytes: int = LIMIT_BYTES,
) -> Pages:
    """Pages as HTML texts: styles, figures, data and script inside, nothing fetched.

    `svgs` maps figure names to SVG texts; `facts` are the run facts of the jobs; `card` goes into each page as JSON.
    The latents of `dictionaries` are browsed in the report as long as that keeps it within `limit_bytes`; else each
    dictionary has a page in the folder beside it.
    """

    content = sections(study, tables, svgs, facts, config_digest)

    def page(latent_pages: Section) -> str:
        whole = [
            one for section in content for one in ([latent_pages, section] if section.id == "costs" else [section])
        ]
        return render(study.report.title, study.report.banner, whole, card)

    def small_page(section: Section) -> str:
        return render(f"{study.report.title}: latents", study.report.banner, [section], card)

    report = page(browser_sections.inside(study, dictionaries))
    is_inside = len(report.encode()) <= limit_bytes or not dictionaries
    beside = {"index.html": small_page(browser_sections.index(dictionaries, is_inside))}
    if not is_inside:
        report = page(browser_sections.linked(study, dictionaries))
        beside |= {f"{one.name}.html": small_page(browser_sections.apart(study, one)) for one in dictionaries}
    return Pages(report, beside)


def sections(
    study: StudyParts,
    tables: StudyTables,
    svgs: Mapping[str, str],
    facts: list[Mapping[str, Any]],
    config_digest: str,
) -> list[Section]:
    """The sections of the report in order; the latent pages go before the costs."""
    drawn = figures_with_captions(study, tables, svgs)
    return [
        study_sections.compared(study, tables),
        study_sections.found(study, tables),
        gate_sections.gates(study, tables),
        model_sections.accuracy(study, tables, drawn),
        model_sections.text(study, tables, drawn),
        model_sections.alignment(study, tables),
        model_sections.divergence(study, tables, drawn),
        latent_sections.dictionaries(study, tables, drawn),
        latent_sections.latents(study, tables, drawn),
        *effect_sections.set_effects(study, tables),
        *transcoder_sections.transcoders(study, tables, drawn),
        label_sections.labels(study, tables, drawn),
        *concept_sections.concepts(study, tables, drawn),
        *circuit_sections.circuits(study, tables, drawn),
        study_sections.spent(facts),
        study_sections.provenance(study, tables, facts, config_digest),
    ]


def figures_with_captions(study: StudyParts, tables: StudyTables, svgs: Mapping[str, str]) -> dict[str, Figure]:
    """{name: figure} of the figures that were drawn."""
    places = {*latent_sections.sites_of(tables.latents), *latent_sections.sites_of(tables.summaries["fidelity"])}
    said = {**captions(study, tables, sorted(places)), **transcoder_captions(study, tables)}
    said |= {**label_captions(study, tables), **circuit_captions(study, tables)}
    return {name: Figure(name, embedded(svg), said.get(name, "")) for name, svg in svgs.items()}


def embedded(svg: str) -> str:
    """An SVG file's text as part of an HTML page: without prologue, metadata and ids that nothing refers to (they
    repeat from figure to figure), and as wide as there is room."""
    inside = svg[svg.index("<svg") :]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', inside))
    inside = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in wanted else "", inside)
    return re.sub(r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'<svg \1style="width:\2pt"', inside, count=1)


def render(title: str, banner: str | None, content: Sequence[Section], card: Mapping[str, Any]) -> str:
    """Sections through the template; all text is escaped, figures are not."""
    card_text = as_script(dict(sorted(card.items())))
    template = environment().get_template("template.html")
    return template.render(title=title, banner=banner, sections=content, card=Markup(card_text))


@functools.cache
def environment() -> Environment:
    """Where templates are found, and what they may do."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["svg"] = Markup  # drawn by ourselves
    found.filters["policy"] = policy
    return found
