"""Does the page say what labels are worth: by whom, beside their controls, and no more than the interval allows?"""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_up_labels import PAIR, SET, TAGS, firing, label, labels, latent_table, score
from pages import page_of, words_of

from reasondiff.report.all_figures import draw
from reasondiff.report.drawing import styled, to_bytes
from reasondiff.report.inputs import gather
from reasondiff.report.label_captions import label_captions
from reasondiff.report.label_sections import label_findings
from reasondiff.report.label_sections import labels as label_section
from reasondiff.report.label_tables import beside_controls, failures, label_summary, labelled
from reasondiff.report.sites import DICTIONARY, figures_of, joined
from reasondiff.store import write_json, write_table

NULL = PAIR.replace("base-distill", "base-base_continued")
LEANING, SHARED = range(8), range(8, 16)


def scores(own: float, shared: float = 0.7, measure: str = "pattern fit", leaning: int = 8) -> pd.DataFrame:
    """Latents 0 to 7 lean to the reasoning model (`leaning` of them are scored), 8 to 15 are shared; own labels score
    `own` and `shared`, shuffled ones 0.5, the top token 0.6."""
    rows = []
    for latent in (*range(leaning), *SHARED):
        tag, value = ("reasoning_only", own) if latent in LEANING else ("shared", shared)
        value += 0.01 * (latent % 2)  # so that no interval is empty
        for control, figure in (("own", value), ("shuffled", 0.5), ("top_token", 0.6)):
            rows.append(score(latent, control, figure, tag, measure=measure))
            rows.append(score(latent, control, figure - 0.05, tag, measure=measure, negatives="same_token"))
            fuzzing = {"task": "fuzzing", "negatives": "wrong_tokens"}
            rows.append(score(latent, control, figure - 0.1, tag, measure=measure, **fuzzing))
    return pd.DataFrame(rows)


def table_of_latents() -> pd.DataFrame:
    tags = {"tag": ["reasoning_only"] * 8 + ["shared"] * 8, "delta": [0.02] * 8 + [0.5] * 8}
    return latent_table(16).assign(**tags)


@pytest.fixture(scope="module")
def scored(make_tables):
    """`scored({folder: scores}, provider=..., rows=...)`: a study with one crosscoder or a pair and its control."""

    def make(found: dict[str, pd.DataFrame], provider: str = "offline", rows=None, **usage):
        rows = [label(latent, "shared") for latent in range(16)] if rows is None else rows
        return make_tables(
            latents={folder.split("/")[1]: table_of_latents() for folder in found},
            label_scores=found,
            firing={folder: firing(range(16)) for folder in found},
            labels={folder: labels(rows, provider, **usage) for folder in found},
        )

    return make


def said(study, tables) -> str:
    return words_of(label_section(study, tables, {}))


# ------------------------------------------------------------------------------------------------ who labelled what


def test_labelled_failed_and_silent_latents_are_counted(study, scored):
    failed = label(1, status="failed", label=None, reason="refused twice")
    silent = label(2, status="no examples", label=None, why="sample")
    tables = scored({PAIR: scores(0.8)}, rows=[label(0), failed, silent, label(3, why="graph")])
    words = said(study, tables)
    assert "2 of 4 latents were labelled by the offline labeller" in words and "1 failed, 1 have no examples" in words
    row = labelled(tables.labels).iloc[0]
    assert row[["asked", "labelled", "failed", "no_examples", "pages", "graphs", "sampled"]].tolist() == [
        4, 2, 1, 1, 2, 1, 1,
    ]  # fmt: skip
    assert failures(tables.labels)["reason"].tolist()[0] == "refused twice" and "refused twice" in words


def test_claude_is_named_with_its_cost_and_the_offline_labeller_costs_nothing(study, scored):
    paid = scored({PAIR: scores(0.8, measure="interpretability")}, "anthropic", requests=120, dollars=1.234)
    words = said(study, paid)
    assert "claude-sonnet-4-5 (provider anthropic)" in words and "120 requests, 1.23 dollars" in words
    assert "dollars" not in said(study, scored({PAIR: scores(0.8)}))


def test_failed_labels_alone_are_said_and_nothing_is_claimed(study, make_tables):
    failed = [label(latent, status="failed", label=None, reason="cut off") for latent in range(3)]
    tables = make_tables(labels={PAIR: labels(failed, "anthropic")})
    words = said(study, tables)
    assert "0 of 3 latents were labelled" in words and "3 failed" in words and "No label was scored (n = 0)" in words
    assert label_findings(study, tables) == []


def test_a_study_without_labels_says_so(study, make_tables):
    for found in ({}, {PAIR: labels([])}):
        tables = make_tables(labels=found)
        assert "No latent was chosen for a label (n = 0)" in said(study, tables)
        assert "Latent pages" in page_of(study, tables)


# ------------------------------------------------------------------------------------------------ scores


def test_means_stand_beside_their_controls_by_tag_layer_and_phase(study, scored):
    frame = beside_controls(scored({PAIR: scores(0.8)}).summaries["label_summary"], study.pairs)
    detection = frame[(frame["task"] == "detection") & (frame["negatives"] == "all")].set_index("group")
    # leaning: 4 at 0.80 and 4 at 0.81; shared: 4 at 0.70 and 4 at 0.71
    assert detection.loc["reasoning_only", "own"] == pytest.approx(0.805)
    assert detection.loc["shared", "own"] == pytest.approx(0.705)
    assert detection.loc["all", "beyond_shuffled"] == pytest.approx(0.755 - 0.5)
    assert detection.loc["all", "beyond_top_token"] == pytest.approx(0.755 - 0.6)
    assert list(detection.index) == ["all", "reasoning_only", "shared", "3", "think"]
    assert detection.loc["all", ["n_latents", "n_compared", "n_windows"]].tolist() == [16, 16, 16 * 30]
    assert detection.loc["all", "shuffled_low"] <= 0.5 <= detection.loc["all", "shuffled_high"]


def test_effect_pairs_come_before_their_control_and_models_last(study, scored):
    found = scored({NULL: scores(0.8), PAIR: scores(0.8)}).summaries["label_summary"]
    transcoders = joined(
        {f"{SET}/x.tsv": scores(0.8).assign(tag="transcoder")}, "transcoders/{model}/{text}/{point}/seed{seed}"
    )
    both = pd.concat([label_summary(joined({}, DICTIONARY), transcoders, 200, 0), found])
    order = list(dict.fromkeys(beside_controls(both, study.pairs)["of"]))
    assert order == ["base-distill", "base-base_continued", "distill"]


def test_a_group_of_five_latents_has_no_figure_but_its_number(study, scored):
    tables = scored({PAIR: scores(0.8, leaning=5)})
    frame = beside_controls(tables.summaries["label_summary"], study.pairs)
    row = frame[(frame["group"] == "reasoning_only") & (frame["task"] == "detection")].iloc[0]
    assert math.isnan(row["own"]) and row["n_latents"] == 5
    assert "nan" not in said(study, tables).lower()


def test_latents_without_a_shuffled_label_are_left_out_of_the_difference_alone(study, scored):
    table = scores(0.8)
    table = table[~((table["control"] == "shuffled") & (table["latent"] == 0))]
    frame = beside_controls(scored({PAIR: table}).summaries["label_summary"], study.pairs)
    row = frame[(frame["split"] == "all") & (frame["task"] == "detection")].iloc[0]
    assert row["n_latents"] == 16 and row["n_compared"] == 15


def test_offline_scores_are_a_pattern_fit_and_never_speak_of_interpretability_but_to_deny_it(study, scored):
    tables = scored({PAIR: scores(0.9, shared=0.6), NULL: scores(0.7)})
    words = said(study, tables)
    assert "pattern fit" in words and "circular" in words
    assert words.lower().count("interpretab") == words.count("nothing about interpretability")
    found = label_findings(study, tables)[0]
    assert "interpretab" not in (found.about + found.sentence + found.control).lower()
    assert "circular" in found.caution and "nothing about interpretability" in found.caution


# ------------------------------------------------------------------------------------------------ the finding


def finding(study, tables):
    (found,) = [one for one in label_findings(study, tables) if one.about.startswith("base-distill")]
    return found


def test_a_clear_difference_is_said_with_its_interval_and_the_control(study, scored):
    tables = scored({PAIR: scores(0.9, shared=0.6), NULL: scores(0.7)})
    found = finding(study, tables)
    assert "score 0.91, those of shared ones that fire alike 0.60" in found.sentence or "0.90" in found.sentence
    assert "difference +0.30 (" in found.sentence and "their patterns fit better" in found.sentence
    assert "in base-base_continued +0.00 (" in found.control and "8 couples of 8 leaning and 8 shared" in found.sample


def test_claude_finds_latents_more_or_less_interpretable_by_the_sign_of_the_interval(study, scored):
    measure = {"measure": "interpretability"}
    up = finding(study, scored({PAIR: scores(0.9, shared=0.6, **measure)}, "anthropic"))
    down = finding(study, scored({PAIR: scores(0.6, shared=0.9, **measure)}, "anthropic"))
    assert "they are more interpretable" in up.sentence and up.caution == ""
    assert "they are less interpretable" in down.sentence and "difference −0.30 (" in down.sentence


def test_an_interval_that_holds_zero_claims_nothing(study, scored):
    table = scores(0.7, shared=0.7)
    own = (table["control"] == "own") & (table["tag"] == "shared")
    table.loc[own, "balanced_accuracy"] += [0.2 * (-1) ** place for place in range(int(own.sum()))]
    sentence = finding(study, scored({PAIR: table})).sentence
    assert "no difference that the interval allows to claim" in sentence and "better" not in sentence


def test_too_few_matched_latents_cannot_be_said(study, scored):
    found = finding(study, scored({PAIR: scores(0.9, leaning=5)}))
    assert "cannot be said (n = 5 matched)" in found.sentence and "score" not in found.sentence
    assert "in base-base_continued it cannot be said (n = 0)" in found.control


def test_latents_that_fire_otherwise_are_no_match(study, scored, make_tables):
    table = firing(range(16))
    table.loc[table["latent"].isin(SHARED), "rate"] = 0.2  # ten times as often
    tables = make_tables(
        latents={"base-distill": table_of_latents()}, label_scores={PAIR: scores(0.9)}, firing={PAIR: table},
        labels={PAIR: labels([label(0)])},
    )  # fmt: skip
    assert "cannot be said (n = 0 matched)" in finding(study, tables).sentence


def test_leaning_latents_are_compared_whatever_their_tag(study, make_tables):
    table = table_of_latents().assign(tag=["other"] * 8 + ["shared"] * 8, delta=[0.2] * 8 + [0.5] * 8)
    given = scores(0.9, shared=0.6)
    given.loc[given["tag"] == "reasoning_only", "tag"] = "other"
    tables = make_tables(
        latents={"base-distill": table}, label_scores={PAIR: given}, firing={PAIR: firing(range(16))},
        labels={PAIR: labels([label(0)])},
    )  # fmt: skip
    found = tables.summaries["label_comparison"]
    rows = found[(found["side"] == "reasoning") & (found["task"] == "detection") & (found["negatives"] == "all")]
    assert dict(zip(rows["by"], rows["n_matched"], strict=True)) == {"tag": 0, "delta": 8}
    assert "8 couples" in finding(study, tables).sample


def test_the_finding_stands_under_what_was_found(study, scored):
    page = page_of(study, scored({PAIR: scores(0.9)}))
    assert page.index('id="found"') < page.index("pattern fit of its latents") < page.index('id="gates"')


# ------------------------------------------------------------------------------------------------ figure, files


def drawn(study, tables) -> str:
    with styled("label_scores"):
        return to_bytes(draw("label_scores", "", study, tables), "svg").decode()


def test_the_figure_shows_tags_and_controls(study, scored):
    svg = drawn(study, scored({PAIR: scores(0.8)}))
    names = ("base-distill, reasoning only", "base-distill, shared", "own label", "shuffled label", "top token alone")
    assert all(f">{name}<" in svg for name in names)


def test_a_figure_without_enough_labels_says_so(study, scored, make_tables):
    for tables in (make_tables(), scored({PAIR: scores(0.8, leaning=2).query("latent < 9")})):
        assert ">no tag has enough scored labels<" in drawn(study, tables)


def test_the_caption_counts_groups_above_shuffled_labels(study, scored):
    tables = scored({PAIR: scores(0.8, shared=0.495)})
    said = label_captions(study, tables)["label_scores"]
    # shared labels score 0.495 and 0.505 beside 0.5: nothing to claim
    assert "in 1 of 2 groups" in said and "n = 8 latents" in said and "pattern fit" in said


def test_labels_and_concepts_have_figures_only_where_there_are_latents(study):
    assert "label_scores" not in figures_of(study.pairs, [], [], None, True)
    assert "label_scores" in figures_of(study.pairs, [], [], study.transcoders)
    assert "concepts" in figures_of(study.pairs, [], ["base-distill/traces/layer3"], None, True)
    assert "concepts" not in figures_of(study.pairs, [], ["base-distill/traces/layer3"], None)


def test_the_section_can_be_made_from_the_files_that_the_stages_write(study, scored, tmp_path):
    given_scores = scores(0.8213, shared=0.7114)  # means that no last digit rounds either way
    given = scored({PAIR: given_scores})
    write_json(tmp_path / PAIR / "labels.json", labels([label(0)]), {"code": "0123"})
    write_table(tmp_path / PAIR / "label_scores.tsv", given_scores, {"code": "4567"})
    for name in given.summaries:
        write_table(tmp_path / f"report/{name}.tsv", given.summaries[name], {})
    read = gather(
        {
            "label_files": [str(tmp_path / PAIR / "labels.json")],
            "label_scores": [str(tmp_path / PAIR / "label_scores.tsv")],
            "summaries": [str(tmp_path / f"report/{name}.tsv") for name in given.summaries],
        }
    )
    assert read.labels[0]["of"] == "base-distill" and len(read.label_scores) == len(given_scores)
    assert said(study, read) == said(study, given).replace("16 of 16 latents", "1 of 1 latents").replace(
        "(n = 16).", "(n = 1)."
    ).replace("offline 16 16 0 0 16 0 0", "offline 1 1 0 0 1 0 0")
    assert len(TAGS) == 4 and "labels.json" in page_of(study, read)
