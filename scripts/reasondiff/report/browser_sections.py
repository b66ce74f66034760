"""Where on the pages of a study does the latent browser stand, and what is said beside it?"""

from __future__ import annotations

from collections.abc import Sequence

from reasondiff.report.blocks import Browser, Links, Paragraph, Section
from reasondiff.report.inputs import StudyParts
from reasondiff.report.latent_pages import FOLDER, Browsed, n_latents, packed
from reasondiff.report.wording import number
from reasondiff.store import as_script

ID, TITLE = "pages", "Latent pages"
REPORT = "report.html"
BACK = "../" * len(FOLDER.split("/")) + REPORT


def inside(study: StudyParts, dictionaries: Sequence[Browsed]) -> Section:
    """The browser of all latents, in the report itself."""
    if not n_latents(dictionaries):
        return Section(ID, TITLE, [Paragraph("No latent was chosen for a label, so none has a page (n = 0).")])
    return Section(ID, TITLE, [Paragraph(_which(study, dictionaries)), Browser(as_script(packed(dictionaries)))])


def linked(study: StudyParts, dictionaries: Sequence[Browsed]) -> Section:
    """Links to a page for each dictionary, where the browser of all would make the report too heavy."""
    links = [(_said(one), f"{FOLDER}/{one.name}.html") for one in dictionaries]
    beside = Paragraph(f"They lie beside this report, in {FOLDER}, since together they would be too heavy for it.")
    return Section(ID, TITLE, [Paragraph(_which(study, dictionaries)), beside, Links(links)])


def apart(study: StudyParts, dictionary: Browsed) -> Section:
    """The browser of one dictionary, for its own page."""
    back = Links([("back to the report", f"{BACK}#{ID}")])
    blocks: list[object] = [back, Paragraph(_which(study, [dictionary]))]
    if dictionary.latents:
        blocks.append(Browser(as_script(packed([dictionary]))))
    return Section(ID, dictionary.title, blocks)


def index(dictionaries: Sequence[Browsed], is_inside: bool) -> Section:
    """What the folder of pages opens with."""
    back = Links([("the report", f"{BACK}#{ID}")])
    if is_inside:
        return Section(ID, TITLE, [Paragraph("All latent pages are in the report itself."), back])
    return Section(ID, TITLE, [back, Links([(_said(one), f"{one.name}.html") for one in dictionaries])])


def _said(dictionary: Browsed) -> str:
    return f"{dictionary.title} ({number(len(dictionary.latents))} latents)"


def _which(study: StudyParts, dictionaries: Sequence[Browsed]) -> str:
    """Which latents are here, and what their examples are."""
    several = "dictionaries" if len(dictionaries) > 1 else "dictionary"
    return (
        f"{number(n_latents(dictionaries))} latents of {len(dictionaries)} {several}: of each crosscoder the "
        f"{study.labels.pages} that lean most to either model and as many shared ones (by activation mass) as the "
        f"baseline, of transcoders those of most activation mass, and {study.labels.sample} sampled ones of each "
        "dictionary. Examples are of the part of the held-out text that labellers may see: the strongest activations "
        "(at most one of a document), and firings drawn from each quantile. Tokens are shaded by activation; the "
        "underlined one is the token the example was chosen for. Rates are over the parts that examples come from."
    )
