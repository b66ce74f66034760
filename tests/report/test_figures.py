"""Can every figure be drawn, with data and without, and is it the same file each time?"""

from __future__ import annotations

import pytest
from made_up import latents

from reasondiff.report.all_figures import draw
from reasondiff.report.drawing import MANY, styled, to_bytes
from reasondiff.report.sites import figures_of

SITES = ["base-distill/traces/layer3", "base-base_continued/traces/layer3"]
SITE = SITES[0]


def drawn(study, tables, kind: str, site: str = SITE, form: str = "svg") -> bytes:
    with styled(kind):
        return to_bytes(draw(kind, site, study, tables), form)


def test_every_figure_of_the_study_can_be_drawn(study, whole):
    for kind, site in figures_of(study.pairs, SITES, SITES, study.transcoders, True).values():
        assert drawn(study, whole, kind, site).startswith(b"<?xml")


def test_every_figure_of_a_study_without_results_says_so(study, make_tables):
    nothing = make_tables()
    for kind, site in figures_of(study.pairs, SITES, SITES, study.transcoders, True).values():
        assert b"no " in drawn(study, nothing, kind, site), kind


@pytest.mark.parametrize("form", ["svg", "png"])
def test_equal_tables_give_equal_bytes(study, whole, form):
    first, second = (drawn(study, whole, "exclusive_counts", form=form) for _ in range(2))
    assert first == second


def test_a_pair_without_control_is_drawn_alone(study, make_tables):
    alone = drawn(study, make_tables(latents={"base-distill": latents(3, 9)}), "scaling").decode()
    assert "control" not in alone and "reasoning only (3)" in alone


def test_the_tags_are_written_as_text_with_their_counts(study, whole):
    svg = drawn(study, whole, "scaling").decode()
    assert "shared (70)" in svg and "shared (99)" in svg, "the pair above, its control below"


def test_many_latents_are_drawn_as_an_image(study, make_tables):
    svg = drawn(study, make_tables(latents={"base-distill": latents(0, MANY + 1)}), "scaling")
    assert b"data:image/png" in svg and len(svg) < 500_000


def test_one_latent_is_enough_for_a_figure(study, make_tables):
    for kind in ("norm_difference", "cosines", "scaling", "exclusive_counts"):
        assert drawn(study, make_tables(latents={"base-distill": latents(1, 0)}), kind)
