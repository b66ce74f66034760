"""How do the sections become one page that opens from disk?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reasondiff.report import gate_sections, latent_sections, model_sections, study_sections, transcoder_sections
from reasondiff.report.blocks import Figure, Section
from reasondiff.report.captions import captions
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.transcoder_captions import transcoder_captions

TEMPLATE_FOLDER = Path(__file__).parent


def write_page(
    study: StudyParts,
    tables: StudyTables,
    svgs: Mapping[str, str],
    facts: list[Mapping[str, Any]],
    config_digest: str,
    card: Mapping[str, Any],
) -> str:
    """The page as one HTML text: styles, figures and script inside, nothing fetched.

    `svgs` maps figure names to SVG texts; `facts` are the run facts of the jobs; `card` goes into the page as JSON.
    """
    drawn = figures_with_captions(study, tables, svgs)
    content: Sequence[Section] = [
        study_sections.compared(study, tables),
        study_sections.found(study, tables),
        gate_sections.gates(study, tables),
        model_sections.accuracy(study, tables, drawn),
        model_sections.text(study, tables, drawn),
        model_sections.alignment(study, tables),
        model_sections.divergence(study, tables, drawn),
        latent_sections.dictionaries(study, tables, drawn),
        latent_sections.latents(study, tables, drawn),
        *transcoder_sections.transcoders(study, tables, drawn),
        study_sections.spent(facts),
        study_sections.provenance(study, tables, facts, config_digest),
    ]
    return render(study.report.title, study.report.banner, content, card)


def figures_with_captions(study: StudyParts, tables: StudyTables, svgs: Mapping[str, str]) -> dict[str, Figure]:
    """{name: figure} of the figures that were drawn."""
    places = {*latent_sections.sites_of(tables.latents), *latent_sections.sites_of(tables.summaries["fidelity"])}
    said = {**captions(study, tables, sorted(places)), **transcoder_captions(study, tables)}
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
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # drawn by ourselves
    card_text = json.dumps(dict(card), sort_keys=True).replace("</", "<\\/")
    template = environment.get_template("template.html")
    return template.render(title=title, banner=banner, sections=content, card=Markup(card_text))
