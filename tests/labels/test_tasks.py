"""Which passages is a label judged on?"""

from __future__ import annotations

import pandas as pd
import pytest
from made_up_examples import planted_rows
from planted_patterns import PLANTS, planted_pattern_rows

from reasondiff.config import LabelScores
from reasondiff.labels.questions import Label
from reasondiff.labels.tasks import OverlapError, firing_windows, refuse_overlap, sheets_of

SETTINGS = LabelScores(positives=8, negatives=5, texts_per_request=6, bootstrap=200, seed=0)


def scored(rows, latent=0):
    return pd.DataFrame([row for row in rows if row["part"] == "score" and row["latent"] == latent])


@pytest.fixture
def detection():
    return sheets_of(scored(planted_rows(["apple"], per_kind=10)), SETTINGS)[0]


@pytest.fixture
def fuzzing():
    return sheets_of(scored(planted_rows(["apple"], per_kind=10)), SETTINGS)[1]


def test_detection_has_firing_windows_and_silent_ones_of_each_kind_in_their_numbers(detection):
    counts = pd.Series(detection.kinds).value_counts().to_dict()
    assert counts == {"firing": 8, "random": 5, "same_token": 5, "neighbour": 5}
    for passage, truth in zip(detection.passages, detection.truth, strict=True):
        assert truth == (" apple" in passage.tokens) and not any(passage.marked)


def test_fuzzing_marks_the_firing_tokens_or_as_many_silent_ones_of_the_same_windows(fuzzing):
    windows = {}
    for passage, truth, kind in zip(fuzzing.passages, fuzzing.truth, fuzzing.kinds, strict=True):
        marked = [token for token, mark in zip(passage.tokens, passage.marked, strict=True) if mark]
        assert kind == ("firing" if truth else "wrong_tokens")
        assert (set(marked) == {" apple"}) if truth else (" apple" not in marked)
        windows.setdefault(passage.tokens, []).append(len(marked))
    assert len(windows) == 8 and all(one == other for one, other in windows.values())


def test_positives_are_taken_in_turn_from_the_strongest_and_the_quantiles_upper_first():
    table = scored(planted_rows(["apple"], per_kind=10))
    found = [(row.kind, row.place) for row in firing_windows(table, 6)]
    assert found == [("strongest", 0), ("quantile", 1), ("quantile", 0)] + [
        ("strongest", 1), ("quantile", 1), ("quantile", 0)
    ]  # fmt: skip
    assert len(firing_windows(table, 99)) == 20


def test_a_window_that_is_both_strongest_and_of_a_quantile_is_asked_once():
    table = scored(planted_rows(["apple"], per_kind=3))
    twin = table.iloc[[0]].assign(kind="quantile", place=1)
    assert len(firing_windows(pd.concat([twin, table]), 99)) == len(firing_windows(table, 99)) == 6


def test_the_order_of_passages_tells_nothing_and_is_the_seeds():
    table = scored(planted_rows(["apple"], per_kind=10))
    one, again = (sheets_of(table, SETTINGS) for _ in range(2))
    other = sheets_of(table, SETTINGS.model_copy(update={"seed": 1}))
    assert one == again
    for sheet, different in zip(one, other, strict=True):
        assert sheet.truth != tuple(sorted(sheet.truth)) and sheet.truth != tuple(sorted(sheet.truth))[::-1]
        assert sheet.passages != different.passages


def test_a_question_carries_no_truth(detection):
    question = detection.question(Label("the apple", "It is so."))
    assert question.passages is detection.passages and question.task == "detection"
    assert not {"truth", "kinds"} & set(vars(question)) and "same_token" not in repr(question)


def test_a_window_with_few_silent_tokens_has_as_many_marked_either_way():
    table = scored(planted_rows(["apple"], per_kind=1)).iloc[[0]]
    values = [1.0] * 7 + [0.0] * 2
    nearly = table.assign(activations=[values])
    passages = sheets_of(nearly, SETTINGS)[1].passages
    assert sorted(sum(passage.marked) for passage in passages) == [2, 2]
    always = table.assign(activations=[[1.0] * 9])
    assert sheets_of(always, SETTINGS)[1].passages == (), "no silent token, no question"
    assert len(sheets_of(always, SETTINGS)[0].passages) == 1


def test_a_silent_window_that_is_not_silent_is_refused():
    table = scored(planted_rows(["apple"]))
    lie = table[table["kind"] == "strongest"].assign(kind="random")
    with pytest.raises(ValueError, match="fires in a window of document .* kept as silent"):
        sheets_of(lie, SETTINGS)


def test_examples_shown_to_a_labeller_are_refused_as_examples_to_score_on():
    rows = planted_rows(["apple", "river"])
    refuse_overlap(pd.DataFrame(rows))
    with pytest.raises(ValueError, match="expected examples of one latent and the part 'score'"):
        sheets_of(pd.DataFrame([row for row in rows if row["part"] == "choose" and row["latent"] == 0]), SETTINGS)
    with pytest.raises(ValueError, match="expected examples of one latent"):
        sheets_of(pd.DataFrame([row for row in rows if row["part"] == "score"]), SETTINGS)


@pytest.mark.parametrize("column", ["document", "problem"])
def test_a_document_or_problem_of_both_parts_is_refused_even_between_two_latents(column):
    rows = planted_rows(["apple", "river"])
    shown = next(row for row in rows if row["part"] == "choose" and row["latent"] == 0)
    held_out = next(row for row in rows if row["part"] == "score" and row["latent"] == 1)
    held_out[column] = shown[column]
    with pytest.raises(OverlapError, match=f"1 {column}.* are in the part `choose`"):
        refuse_overlap(pd.DataFrame(rows))


def test_a_passage_says_its_phase():
    sheet = sheets_of(scored(planted_pattern_rows([PLANTS["phase"]])), SETTINGS)[0]
    phases = {truth: {p.phase for p, t in zip(sheet.passages, sheet.truth, strict=True) if t == truth}
              for truth in (True, False)}  # fmt: skip
    assert phases[True] == {"think"} and len(phases[False]) == 3


def test_no_example_gives_two_empty_sheets():
    sheets = sheets_of(scored(planted_rows(["apple"])).iloc[:0], SETTINGS)
    assert [(sheet.task, sheet.passages) for sheet in sheets] == [("detection", ()), ("fuzzing", ())]
