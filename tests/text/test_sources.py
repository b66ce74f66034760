"""Text is read from every kind of file, and a source of another form is refused before any model runs."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from pydantic import TypeAdapter

from reasondiff.config import Source, Split
from reasondiff.text.sources import SourceError, at_commits, files_of_rows, is_plain, read_source, training_filter
from reasondiff.text.split import part_of

SHARES = {"train": 0.5, "calibrate": 0.1, "choose": 0.1, "score": 0.1, "report": 0.2}
SPLIT = Split.model_validate({"seed": 1, "shares": SHARES, "held_out_family": "travel"})
ROW = {
    "problem": "1 + 1?",
    "generations": ["<think>\n2\n</think>\n\n2", "<think>\nhm"],
    "is_reasoning_complete": [True, False],
    "correctness_math_verify": [True, False],
    "answer": "2",
}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(*files, kind="files", rows=None, **more):
    settings = {"kind": kind, "weight": 1.0, "files": [str(file) for file in files], "rows": rows, **more}
    return read_source("mine", TypeAdapter(Source).validate_python(settings), SPLIT)


def read_plain(*files, column=None, rows=None):
    return read(*files, kind="plain_files", rows=rows, column=column)


def test_json_lines_and_parquet_of_the_same_rows_read_alike(tmp_path):
    rows = [ROW, {**ROW, "problem": "2 + 2?"}]
    lines = read(write_lines(tmp_path / "a.jsonl", rows))
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    parquet = read(tmp_path / "a.parquet")
    assert lines["problem"].tolist() == parquet["problem"].tolist() == ["1 + 1?", "2 + 2?"]
    for column in ("generations", "is_reasoning_complete", "correctness_math_verify"):
        assert [list(cell) for cell in lines[column]] == [list(cell) for cell in parquet[column]]


def test_several_files_follow_one_another_and_rows_limits_them(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", [ROW] * 2)
    second = write_lines(tmp_path / "b.jsonl", [{**ROW, "problem": "last"}])
    assert read(first, second)["problem"].tolist() == ["1 + 1?", "1 + 1?", "last"]
    assert len(read(first, second, rows=1)) == 1


def test_answers_stay_the_text_they_are(tmp_path):
    rows = [{**ROW, "answer": "007"}, {**ROW, "answer": "1.50"}]
    assert read(write_lines(tmp_path / "a.jsonl", rows))["answer"].tolist() == ["007", "1.50"]


@pytest.mark.parametrize("absent", ["is_reasoning_complete", "correctness_math_verify"])
def test_flags_that_a_source_or_a_row_lacks_are_unknown(tmp_path, absent):
    without = {key: value for key, value in ROW.items() if key != absent}
    assert read(write_lines(tmp_path / "a.jsonl", [without]))[absent].tolist() == [None]
    mixed = read(write_lines(tmp_path / "b.jsonl", [ROW, without]))[absent].tolist()
    assert mixed == [ROW[absent], None]


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("column", ["problem", "generations"])
def test_a_missing_column_is_named_with_those_that_came(tmp_path, column):
    without = {key: value for key, value in ROW.items() if key != column}
    with pytest.raises(SourceError, match=rf"'mine' lacks the column\(s\) {column}: expected.*came:.*answer"):
        read(write_lines(tmp_path / "a.jsonl", [without]))


def test_flags_of_another_length_than_the_generations_are_refused_with_the_row(tmp_path):
    rows = [ROW, {**ROW, "is_reasoning_complete": [True]}]
    with pytest.raises(SourceError, match=r"row 1: `is_reasoning_complete` must be a list with one entry per gen"):
        read(write_lines(tmp_path / "a.jsonl", rows))


@pytest.mark.parametrize("generations", ["one text", None, [None], [1, 2]])
def test_generations_that_are_no_list_of_texts_are_refused(tmp_path, generations):
    with pytest.raises(SourceError, match=r"row 0: `generations` must be a list of strings"):
        read(write_lines(tmp_path / "a.jsonl", [{**ROW, "generations": generations}]))


def test_a_problem_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"row 1: `problem` must be a string \(1 of 2 rows"):
        read(write_lines(tmp_path / "a.jsonl", [ROW, {**ROW, "problem": None}]))


def test_an_empty_source_is_refused_as_empty(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    pd.DataFrame([ROW]).head(0).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n  \n")
    for reader, name in ((read, "a.jsonl"), (read, "a.parquet"), (read_plain, "a.txt")):
        with pytest.raises(SourceError, match="'mine' is empty"):
            reader(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"'mine': there is no file .*a\.jsonl"):
        read(tmp_path / "a.jsonl")


def test_a_file_of_another_kind_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "a.csv").write_text("problem\n")
    with pytest.raises(SourceError, match=r"a\.csv must end in one of \.parquet, \.jsonl, \.txt"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"problem": "1 + ')
    with pytest.raises(SourceError, match=rf"{name} cannot be read"):
        read(tmp_path / name)


def test_a_data_set_that_cannot_be_fetched_is_named(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    hub = {"kind": "hub", "weight": 1.0, "repo": "some/data", "revision": "abc", "subset": None, "split": "train"}
    with pytest.raises(SourceError, match="'mine': the hub repository some/data.*cannot be fetched"):
        read_source("mine", TypeAdapter(Source).validate_python({**hub, "rows": 5}), SPLIT)


COMMIT = "a" * 40


@pytest.fixture
def hub_rows(tmp_path, monkeypatch):
    """`hub_rows(configs, subset=...)`: a source whose data set has such a card, and the patterns that were fetched."""

    def make(configs, **changes):
        folder = tmp_path / COMMIT
        for name, problems in (("data", ["one", "two"]), ("more", ["three"])):
            (folder / name).mkdir(parents=True, exist_ok=True)
            rows = pd.DataFrame({"problem": problems, "generations": [["x"]] * len(problems), "uuid": problems})
            rows.to_parquet(folder / name / "train-0.parquet")
        if configs is not None:
            (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
        fetched = []

        def download(repo, revision, patterns, kind):
            fetched.append((repo, revision, list(patterns), kind))
            return folder

        monkeypatch.setattr("reasondiff.text.sources.download_folder", download)
        source = {"kind": "hub", "weight": 1.0, "repo": "some/data", "revision": None, "subset": None, "split": "train"}
        return TypeAdapter(Source).validate_python({**source, "rows": None, **changes}), fetched

    return make


CONFIGS = [
    {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]},
    {"config_name": "more", "data_files": "more/*.parquet"},
]


@pytest.mark.parametrize(
    ("configs", "subset", "patterns", "problems"),
    [
        (CONFIGS, None, ["README.md", "data/train-*"], ["one", "two"]),
        (CONFIGS, "more", ["README.md", "more/*.parquet"], ["three"]),
        (CONFIGS[1:], None, ["README.md", "more/*.parquet"], ["three"]),
        ([{"config_name": "default", "data_files": ["data/*", "more/*"]}], None, ["README.md", "data/*", "more/*"],
         ["one", "two", "three"]),
    ],
)  # fmt: skip
def test_of_a_data_set_the_files_of_the_subset_are_fetched_and_read(hub_rows, configs, subset, patterns, problems):
    source, fetched = hub_rows(configs, subset=subset, revision=COMMIT)
    assert read_source("mine", source, SPLIT)["problem"].tolist() == problems
    assert fetched[-1] == ("some/data", COMMIT, patterns, "dataset")


def test_a_column_of_a_data_set_is_plain_text_and_no_other_column_is_read(hub_rows):
    source, _ = hub_rows(CONFIGS, column="problem", revision=COMMIT)
    rows = read_source("mine", source, SPLIT)
    assert is_plain(source) and rows.columns.tolist() == ["text"] and rows["text"].tolist() == ["one", "two"]
    absent, _ = hub_rows(CONFIGS, column="body", revision=COMMIT)
    with pytest.raises(SourceError, match="lacks the column 'body': came problem, generations"):
        read_source("mine", absent, SPLIT)


def test_columns_that_nothing_reads_are_left_on_disk(hub_rows):
    source, _ = hub_rows(CONFIGS, revision=COMMIT)
    assert "uuid" not in read_source("mine", source, SPLIT).columns


def test_of_a_data_set_without_a_card_everything_is_fetched(hub_rows):
    source, _ = hub_rows(None)
    assert files_of_rows(source) == ["*"]


def test_a_subset_that_the_card_does_not_have_is_refused_with_those_it_has(hub_rows):
    source, fetched = hub_rows(CONFIGS, subset="all")
    with pytest.raises(SourceError, match="no subset 'all'; it has default, more"):
        read_source("mine", source, SPLIT)
    assert [patterns for _, _, patterns, _ in fetched] == [["README.md"]], "no data for nothing"


def test_a_branch_becomes_the_commit_that_was_read(hub_rows, text_settings):
    source, _ = hub_rows(CONFIGS, revision="main")
    text = text_settings(sources={"mine": source})
    assert at_commits(text).sources["mine"].revision == COMMIT
    fixed = text_settings(sources={"mine": {**source.model_dump(), "revision": "b" * 40}})
    assert at_commits(fixed) == fixed


# ------------------------------------------------------------------------------------------- plain text


def test_plain_text_is_a_document_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("One day.\n\nTwo\u2028lines?\n", encoding="utf-8")
    assert read_plain(tmp_path / "a.txt")["text"].tolist() == ["One day.", "Two\u2028lines?"]


def test_plain_text_comes_from_any_column_and_missing_cells_are_no_documents(tmp_path):
    rows = [{"body": "One."}, {"body": None}, {"body": " "}, {"body": "Two."}]
    file = write_lines(tmp_path / "a.jsonl", rows)
    assert read_plain(file, column="body")["text"].tolist() == ["One.", "Two."]
    with pytest.raises(SourceError, match="lacks the column 'text': came body"):
        read_plain(file)


def test_generated_sources_are_the_same_every_time():
    plain = TypeAdapter(Source).validate_python({"kind": "generated_plain", "weight": 1.0, "documents": 20, "seed": 6})
    first, second = (read_source("mine", plain, SPLIT) for _ in range(2))
    assert len(first) == 20 and first.equals(second)


def test_generated_problems_have_flags_for_every_generation():
    settings = {"kind": "generated", "weight": 1.0, "problems": 12, "generations": 3, "steps": {1: 1.0}, "seed": 0}
    rows = read_source(
        "mine", TypeAdapter(Source).validate_python({**settings, "wrong_share": 0.5, "truncated_share": 0.2}), SPLIT
    )
    assert len(rows) == 12
    assert {len(cell) for column in ("generations", "is_reasoning_complete") for cell in rows[column]} == {3}


def test_a_model_is_trained_on_problems_of_the_train_part_only():
    keep = training_filter(SPLIT)
    problems = [f"problem {n}" for n in range(200)]
    assert [keep(p) for p in problems] == [part_of(p, SPLIT) == "train" for p in problems]
    assert not any(keep(p, "travel") for p in problems)
