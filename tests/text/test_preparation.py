"""Complete generations become documents, right or wrong, all of a problem in one part."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from reasondiff.config import Split
from reasondiff.store import read_table, write_table
from reasondiff.text.preparation import explode, held_out_problems, plain_documents, prepare_text, split_generation
from reasondiff.text.sources import SourceError

SHARES = {"train": 0.4, "calibrate": 0.1, "choose": 0.1, "score": 0.1, "report": 0.3}
SPLIT = Split.model_validate({"seed": 1, "shares": SHARES, "held_out_family": "travel"})
PREFIX = "Reason step by step."


def row(problem="1 + 1?", generations=("<think>\na\n</think>\n\nb",), complete=None, correct=None, **more):
    flags = {"is_reasoning_complete": complete, "correctness_math_verify": correct}
    return {"problem": problem, "generations": list(generations), **flags, **more}


def exploded(*rows):
    return explode(pd.DataFrame(rows), "mine", PREFIX, SPLIT)


@pytest.mark.parametrize(
    ("generation", "think", "answer"),
    [
        ("<think>\nOne.\n\nTwo.\n</think>\n\nIt is 3.", "One.\n\nTwo.", "It is 3."),
        ("One.\n</think>\nIt is 3.", "One.", "It is 3."),  # the template had opened the think part
        ("<think>\n\n</think>\n\nIt is 3.", "", "It is 3."),
        ("<think>\nOne.", "One.", ""),  # never finished
        ("a <think>b</think> c </think> d", "b", "c </think> d"),
    ],
)
def test_a_generation_falls_into_think_and_answer(generation, think, answer):
    assert split_generation(generation) == (think, answer)


def test_incomplete_generations_are_left_out_and_wrong_ones_are_kept():
    generations = [f"<think>\n{n}\n</think>\n\n{n}" for n in range(4)]
    documents = exploded(row(generations=generations, complete=[1, 0, 1, 1], correct=[True, True, False, None]))
    assert documents["think"].tolist() == ["0", "2", "3"]
    assert documents["correct"].tolist() == [True, False, None]


def test_without_a_flag_a_closed_think_part_is_complete():
    generations = ["<think>\na\n</think>\n\nb", "<think>\nc"]
    for complete in (None, [None, None]):
        assert exploded(row(generations=generations, complete=complete))["think"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("mode", "think", "answer"), [("answers", None, "b"), ("traces", "a", None), ("both", "a", "b")]
)
def test_what_a_mode_does_not_read_is_not_kept(tmp_path, text_settings, mode, think, answer):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row()) + "\n")
    sources = {"mine": {"kind": "files", "weight": 1.0, "files": [str(file)], "rows": None}}
    (document,) = prepare_text(text_settings(sources=sources, mode=mode), SPLIT).itertuples()
    assert (document.think, document.answer) == (think, answer)


def test_all_generations_of_a_problem_are_in_one_part_under_one_name():
    rows = [row(f"Problem {n}", ["<think>a</think>b"] * 3) for n in range(60)]
    copies = [row(f" PROBLEM  {n} ", ["<think>a</think>c"]) for n in range(60)]
    documents = exploded(*rows, *copies)
    assert (documents.groupby("problem_id")["part"].nunique() == 1).all()
    assert documents["problem_id"].nunique() == 60 and documents["part"].nunique() == 5


def test_the_held_out_family_has_its_own_part_and_a_missing_family_none():
    documents = exploded(row(family="travel"), row("2 + 2?", family=float("nan")))
    assert documents["part"].iloc[0] == "family" and documents["part"].iloc[1] != "family"
    assert documents["family"][0] == "travel" and pd.isna(documents["family"][1])


def test_the_instruction_follows_the_problem():
    assert exploded(row(" 1 + 1? \n"))["prompt"].tolist() == [f"1 + 1? {PREFIX}"]


def test_expected_answers_of_mixed_types_are_text_and_can_be_stored(tmp_path):
    documents = exploded(row(answer="2"), row("2 + 2?", answer=4), row("?", answer=float("nan")))
    assert documents["expected"].tolist()[:2] == ["2", "4"] and pd.isna(documents["expected"][2])
    write_table(tmp_path / "documents.parquet", documents, {})
    assert read_table(tmp_path / "documents.parquet")["think"].tolist() == ["a"] * 3


def test_plain_texts_are_their_own_problems():
    documents = plain_documents(pd.DataFrame({"text": ["The sky.", "the  sky.", "A cat."]}), "plain", SPLIT)
    assert documents["text"].tolist() == ["The sky.", "the  sky.", "A cat."]
    assert documents["problem_id"].nunique() == 2 and documents["part"].iloc[0] == documents["part"].iloc[1]


def prepared(tmp_path, rows, text_settings):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.txt").write_text("The sky.\nA cat.\n")
    sources = {
        "mine": {"kind": "files", "weight": 1.0, "files": [str(tmp_path / "a.jsonl")], "rows": None},
        "plain": {
            "kind": "plain_files",
            "weight": 1.0,
            "files": [str(tmp_path / "b.txt")],
            "column": None,
            "rows": None,
        },
    }
    return prepare_text(text_settings(sources=sources, prefix=PREFIX), SPLIT)


def test_problems_and_plain_text_stand_in_one_table(tmp_path, text_settings):
    documents = prepared(tmp_path, [row(correct=[False])], text_settings)
    assert documents["source"].tolist() == ["mine", "plain", "plain"]
    write_table(tmp_path / "documents.parquet", documents, {})
    again = read_table(tmp_path / "documents.parquet")
    assert again["text"].isna().tolist() == [True, False, False]
    assert again["correct"].tolist() == [False, None, None]


def test_a_source_without_a_complete_generation_is_refused(tmp_path, text_settings):
    with pytest.raises(SourceError, match="'mine': none of its 1 rows has a complete generation"):
        prepared(tmp_path, [row(complete=[False])], text_settings)


def test_accuracy_is_asked_on_reported_problems_with_known_answers_each_once():
    rows = [row(f"Problem {n}", ["<think>a</think>b"] * 2, answer=n if n % 2 else None) for n in range(60)]
    rows.append(row("A journey", answer=3, family="travel"))
    problems = held_out_problems(exploded(*rows), PREFIX)
    parts = exploded(*rows).drop_duplicates("problem_id").set_index("problem_id")["part"]
    assert set(parts[problems["problem_id"]]) == {"report", "family"}
    assert problems["problem_id"].is_unique and problems["answer"].notna().all()
    assert problems.set_index("problem")["held_out_family"].to_dict()["A journey"]
    assert problems["held_out_family"].sum() == 1
    assert not problems["problem"].str.contains(PREFIX, regex=False).any()
