"""Is text on the pages of a study only ever text, whatever it says? In a real browser."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from headless import HOSTILE, RAN, needs_chromium, opened
from made_up import responses
from made_up_circuits import circuits, graph, not_made
from made_up_labels import PAIR, firing, label, latent_table, write_dictionary
from pages import figures_on, page_of

from reasondiff.report.blocks import Paragraph, Section
from reasondiff.report.latent_pages import browsed
from reasondiff.report.page import render, write_page
from reasondiff.store import write_text

EMPTY = "<svg></svg>"
LATENT = "latent-base-distill-3-btk24-0-1"


@pytest.fixture(scope="module")
def tables(make_tables):
    """Model responses, tokens, categories, labels and reasons that would be markup."""
    graphs = [graph("p0", target_token=HOSTILE, category=HOSTILE), not_made("p1", "failed", HOSTILE)]
    said = responses("distill", [True, False] * 10).assign(problem=HOSTILE, response=HOSTILE, answer=HOSTILE)
    return make_tables(
        responses=said,
        latents={"base-distill": latent_table()},
        firing={PAIR: firing(range(4))},
        circuits={**circuits(), "graph_summary": pd.DataFrame(graphs)},
    )


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory, study, tables):
    """Latents that fire on words that would be markup, with such labels."""
    rows = [label(one, "shared", label=HOSTILE, explanation=HOSTILE) for one in range(4)]
    files = write_dictionary(tmp_path_factory.mktemp("results"), rows=rows, triggers=(HOSTILE,) * 4)
    return browsed(files, study, tables)


def unescaped(title: str, text: str) -> str:
    """A page whose template forgot to escape."""
    page = render(title, None, [Section("one", "One", [Paragraph("PLACE")])], {})
    assert page.count("PLACE") == 1
    return page.replace("PLACE", text)


@needs_chromium
def test_a_page_without_a_policy_would_run_what_is_not_escaped(tmp_path):
    page = re.sub("<meta http-equiv[^>]*>", "", unescaped("x", HOSTILE))
    write_text(tmp_path / "page.html", page)
    assert opened(tmp_path / "page.html").ran


@needs_chromium
def test_what_is_not_escaped_is_forbidden_by_the_policy_of_the_page(tmp_path):
    write_text(tmp_path / "page.html", unescaped("x", HOSTILE))
    found = opened(tmp_path / "page.html")
    assert not found.ran and any("Content Security Policy" in line for line in found.console)


@needs_chromium
def test_the_report_shows_hostile_text_as_text(tmp_path, study, tables, dictionary):
    pages = write_page(
        study, tables, dict.fromkeys(figures_on(study), EMPTY), [], "00", {"study": HOSTILE}, [dictionary]
    )
    write_text(tmp_path / "report.html", pages.report)
    found = opened(tmp_path / "report.html", LATENT)
    assert not found.ran and found.console == []
    for place in ("accuracy", "graphs", "pages"):
        section = found.dom[found.dom.index(f'<section id="{place}">') :]
        assert RAN in section[: section.index("</section>")], f"the text is not in the section {place}"
    article = found.dom[found.dom.index('id="browser-latent"') :]
    assert "onerror=" in article[: article.index("</article>")], "the script of the page shows no latent"


@needs_chromium
def test_the_pages_of_latents_show_hostile_text_as_text(tmp_path, study, tables, dictionary):
    pages = write_page(
        study, tables, dict.fromkeys(figures_on(study), EMPTY), [], "00", {}, [dictionary], limit_bytes=0
    )
    write_text(tmp_path / "page.html", pages.beside[f"{dictionary.name}.html"])
    found = opened(tmp_path / "page.html", LATENT)
    assert not found.ran and found.console == []
    assert found.dom.count("&lt;/script&gt;") > 4


@needs_chromium
def test_a_whole_page_with_figures_breaks_no_rule_of_its_policy(tmp_path, study, whole):
    write_text(tmp_path / "report.html", page_of(study, whole))
    found = opened(tmp_path / "report.html")
    assert found.console == [] and "data-place" not in found.dom
