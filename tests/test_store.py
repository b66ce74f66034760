"""Artefacts are whole or absent, carry their card, and equal content gives equal bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from reasondiff import store

CARD = {"seed": 3, "settings": {"k": 24, "name": "größe"}, "digest": "abc"}
FRAME = pd.DataFrame({"layer": [1, 2], "fve": [0.5, float("nan")], "tag": ["shared", "NA"], "live": [True, False]})


def write(path, card=CARD):
    """Some content of the kind that the ending says."""
    match path.suffix:
        case ".safetensors":
            store.write_tensors(path, {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor(1)}, card)
        case ".npz":
            store.write_arrays(path, {"ids": np.arange(5, dtype=np.int32)}, card)
        case ".json":
            store.write_json(path, {"n": 2}, card)
        case _:
            store.write_table(path, FRAME, card)


ALL_KINDS = pytest.mark.parametrize("name", ["x.tsv", "x.parquet", "x.safetensors", "x.npz", "x.json"])


# ------------------------------------------------------------------------------------------- whole or absent


def test_a_failure_while_writing_leaves_neither_the_file_nor_a_temporary_one(tmp_path):
    with pytest.raises(KeyError), store.replacing(tmp_path / "x.tsv") as temporary:
        temporary.write_text("half")
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_the_finished_file_as_it_was(tmp_path):
    path = tmp_path / "x.txt"
    store.write_text(path, "finished")
    with pytest.raises(KeyboardInterrupt), store.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "finished"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "x.tsv"
    with store.replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.suffix == ".tsv"
        temporary.write_text("whole")
        written = temporary.stat().st_ino
    assert path.read_text() == "whole"
    assert path.stat().st_ino == written  # moved in one step, not copied bit by bit


def test_a_failure_while_filling_a_folder_moves_nothing_into_it(tmp_path):
    with pytest.raises(KeyError), store.filling(tmp_path / "model") as temporary:
        (temporary / "weights").write_text("half")
        raise KeyError("stop")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_filled_folder_keeps_what_was_there_and_gains_the_new_files(tmp_path):
    (tmp_path / "history").write_text("kept")
    with store.filling(tmp_path) as temporary:
        (temporary / "weights").write_text("new")
    assert {file.name for file in tmp_path.iterdir()} == {"history", "weights", store.DIGESTS}
    assert [(tmp_path / name).read_text() for name in ("history", "weights")] == ["kept", "new"]


# ------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file_and_what_to_do(tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, "no space")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(store.ArtefactError, match=r"no room to write .*x\.tsv.*MiB are free.*results_dir"):
        write(tmp_path / "x.tsv")


def test_a_full_disk_is_recognised_where_a_library_hides_the_system_error(tmp_path, monkeypatch):
    usage = store.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(store.ArtefactError, match="no room to write"), store.replacing(tmp_path / "x.pt"):
        raise RuntimeError("unexpected pos 704 vs 598")  # what torch.save says on a full disk
    with pytest.raises(store.ArtefactError, match="no room to write"), store.filling(tmp_path / "model"):
        raise RuntimeError("I/O error")


def test_a_disk_that_is_read_only_is_named_with_the_file_and_what_to_do(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("pathlib.Path.write_bytes", read_only)
    with pytest.raises(store.ArtefactError, match=r"x\.tsv cannot be written: .* is read-only.*results_dir"):
        write(tmp_path / "x.tsv")


def test_another_error_while_writing_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), store.replacing(tmp_path / "x.tsv"):
        raise PermissionError(errno.EACCES, "not yours")
    with pytest.raises(RuntimeError, match="shapes"), store.replacing(tmp_path / "x.tsv"):
        raise RuntimeError("shapes")


# ------------------------------------------------------------------------------------------- cards and content


@ALL_KINDS
def test_a_card_comes_back_as_it_was_written(tmp_path, name):
    write(tmp_path / name)
    assert store.read_card(tmp_path / name) == CARD


@ALL_KINDS
def test_equal_content_gives_equal_bytes_whatever_the_order_of_the_card(tmp_path, name):
    if name == "x.json":
        pytest.skip("the keys of a JSON file keep their order on purpose")
    write(tmp_path / name)
    first = (tmp_path / name).read_bytes()
    write(tmp_path / name, dict(reversed(CARD.items())))
    assert (tmp_path / name).read_bytes() == first


def test_no_time_of_writing_is_inside_an_npz(tmp_path):
    write(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz") as file:
        assert {entry.date_time[0] for entry in file.infolist()} == {1980}


@pytest.mark.parametrize("name", ["x.tsv", "x.parquet"])
def test_a_table_comes_back_with_its_types_and_missing_values(tmp_path, name):
    write(tmp_path / name)
    frame = store.read_table(tmp_path / name)
    pd.testing.assert_frame_equal(frame, FRAME)  # the tag "NA" is a word, not a missing value
    assert frame.attrs["card"] == CARD


@pytest.mark.parametrize("name", ["x.tsv", "x.parquet"])
def test_cells_with_tabs_quotes_and_line_ends_come_back(tmp_path, name):
    frame = pd.DataFrame({"token": ["a\tb", "\n", "\r", '"', "\r\n", "# card: {}", "\u2028", " x "], "n": range(8)})
    store.write_table(tmp_path / name, frame, CARD)
    assert store.read_table(tmp_path / name)["token"].tolist() == frame["token"].tolist()


@pytest.mark.parametrize("name", ["x.tsv", "x.parquet"])
def test_a_table_without_rows_is_a_valid_table(tmp_path, name):
    store.write_table(tmp_path / name, FRAME.head(0), CARD)
    assert list(store.read_table(tmp_path / name).columns) == list(FRAME.columns)
    assert len(store.read_table(tmp_path / name)) == 0


def test_a_table_of_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.tsv or \.parquet"):
        store.write_table(tmp_path / "x.csv", FRAME, CARD)


def test_tensors_and_arrays_come_back_as_they_were(tmp_path):
    write(tmp_path / "x.safetensors")
    write(tmp_path / "x.npz")
    tensors, card = store.read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["b"], torch.arange(6.0).reshape(2, 3).T) and card == CARD
    arrays, card = store.read_arrays(tmp_path / "x.npz")
    assert list(arrays) == ["ids"] and arrays["ids"].dtype == np.int32 and card == CARD


def test_files_made_elsewhere_have_an_empty_card(tmp_path):
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2")
    np.savez(tmp_path / "x.npz", ids=np.arange(3))
    FRAME.to_parquet(tmp_path / "x.parquet")
    assert [store.read_card(tmp_path / name) for name in ("x.tsv", "x.npz", "x.parquet")] == [{}, {}, {}]
    assert store.read_table(tmp_path / "x.tsv")["b"].tolist() == [2]


def test_json_lines_keep_texts_with_any_line_separator(tmp_path):
    rows = [{"text": "one\u2028two\u0085three\nfour"}, {"text": "\x0b\x1c"}]
    store.write_json_lines(tmp_path / "x.jsonl", rows)
    assert store.read_json_lines(tmp_path / "x.jsonl") == rows


# ------------------------------------------------------------------------------------------- broken files


@ALL_KINDS
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, name, share):
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    readers = {".safetensors": store.read_tensors, ".npz": store.read_arrays, ".json": store.read_json}
    with pytest.raises(store.ArtefactError, match=rf"{name} cannot be read.*delete it and run"):
        readers.get(path.suffix, store.read_table)(path)


@ALL_KINDS
def test_a_missing_file_is_an_error_that_says_how_to_make_it(tmp_path, name):
    with pytest.raises(store.ArtefactError, match=rf"{name} is missing: run the rule"):
        store.read_card(tmp_path / name)


# ------------------------------------------------------------------------------------------- seals


READERS = {".safetensors": store.read_tensors, ".npz": store.read_arrays, ".json": store.read_json}


@ALL_KINDS
def test_a_changed_value_is_noticed_whoever_reads(tmp_path, name):
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    values = {"tsv": b"0.5", "parquet": b"shared", "safetensors": b"\x80?", "npz": b"\x01\x00\x00", "json": b": 2"}
    value = values[path.suffix[1:]]
    place = whole.find(value) + len(value) - 1
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for read in (READERS.get(path.suffix, store.read_table), store.read_card):
        with pytest.raises(store.ArtefactError, match=rf"{name} cannot be read.*delete it and run"):
            read(path)


def test_a_seal_is_the_digest_of_the_file_with_zeros_in_its_place(tmp_path):
    store.write_table(tmp_path / "x.tsv", FRAME, CARD)
    text = (tmp_path / "x.tsv").read_text()
    seal = json.loads(text.split("\n")[0].removeprefix("# card: "))["seal"]
    assert hashlib.sha256(text.replace(seal, "0" * 64).encode()).hexdigest() == seal


@pytest.mark.parametrize("name", ["x.tsv", "x.parquet", "x.json", "x.jsonl"])
def test_text_that_looks_like_a_seal_stays_as_it_was(tmp_path, name):
    texts = ["0" * 64, '"seal": "' + "0" * 64 + '"', "# card: {}"] * 100
    if name == "x.json":
        store.write_json(tmp_path / name, {"texts": texts}, CARD)
        assert store.read_json(tmp_path / name) == {"texts": texts, "card": CARD}
    elif name == "x.jsonl":
        store.write_json_lines(tmp_path / name, [{"texts": texts}])
        assert store.read_json_lines(tmp_path / name) == [{"texts": texts}]
    else:
        store.write_table(tmp_path / name, pd.DataFrame({"text": texts}), CARD)
        assert store.read_table(tmp_path / name)["text"].tolist() == texts


def test_a_file_from_before_there_were_seals_is_read(tmp_path):
    line = "# card: " + json.dumps(CARD)
    (tmp_path / "x.tsv").write_text(line + "\na\tb\n1\t2\n")
    (tmp_path / "x.json").write_text(json.dumps({"n": 2, "card": CARD}))
    (tmp_path / "x.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"card": json.dumps(CARD)})
    assert store.read_table(tmp_path / "x.tsv").attrs["card"] == CARD
    assert store.read_json(tmp_path / "x.json") == {"n": 2, "card": CARD}
    assert store.read_json_lines(tmp_path / "x.jsonl") == [{"step": 1}, {"step": 2}]
    assert store.read_tensors(tmp_path / "x.safetensors")[1] == CARD


def test_a_card_of_another_artefact_may_hold_its_seal(tmp_path):
    write(tmp_path / "x.tsv")
    seal = json.loads((tmp_path / "x.tsv").read_text().split("\n")[0].removeprefix("# card: "))["seal"]
    for name in ("y.tsv", "y.parquet", "y.json"):
        write(tmp_path / name, {"of": seal})
        assert store.read_card(tmp_path / name) == {"of": seal}


def test_a_file_is_checked_again_once_it_has_changed(tmp_path):
    path = tmp_path / "x.tsv"
    write(path)
    store.read_table(path)
    path.write_text(path.read_text() + "3\t0.25\tshared\tTrue\n")
    with pytest.raises(store.ArtefactError, match="seal"):
        store.read_table(path)


@pytest.mark.parametrize("text", ["", "#", "# car"])
def test_a_table_of_which_less_than_the_card_is_left_is_refused(tmp_path, text):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(store.ArtefactError, match=r"x\.tsv cannot be read"):
        store.read_table(tmp_path / "x.tsv")


def test_a_folder_that_a_library_wrote_is_checked_file_by_file(tmp_path):
    with store.filling(tmp_path) as temporary:
        (temporary / "config.json").write_text('{"theta": 10000}')
        (temporary / "weights").write_bytes(b"\0" * 8)
    store.check_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"theta": 10001}')
    with pytest.raises(store.ArtefactError, match=r"config\.json cannot be read"):
        store.check_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(store.ArtefactError, match=r"config\.json is missing"):
        store.check_folder(tmp_path)


def test_a_file_in_the_cache_of_the_hub_is_checked_against_the_digest_that_names_it(tmp_path):
    blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(blob)
    store.check_folder(tmp_path)
    blob.write_bytes(b"weighty")
    with pytest.raises(store.ArtefactError, match=r"model\.safetensors cannot be read"):
        store.check_folder(tmp_path)


# ------------------------------------------------------------------------------------------- fingerprints


def test_fingerprints_do_not_depend_on_order_or_run_but_on_every_value():
    first = store.fingerprint(seed=0, point={"k": 24, "sides": [0, 1]})
    assert first == store.fingerprint(point={"sides": (0, 1), "k": 24}, seed=0)
    as_text = '{"point": {"k": 24, "sides": [0, 1]}, "seed": 0}'  # the same in every process and on every machine
    assert first == store.digest(as_text)
    others = [
        store.fingerprint(seed=1, point={"k": 24, "sides": [0, 1]}),
        store.fingerprint(seed=0, point={"k": 25, "sides": [0, 1]}),
        store.fingerprint(seed=0, point={"k": 24, "sides": [1, 0]}),
    ]
    assert len({first, *others}) == 4


def test_what_has_no_stable_text_form_gives_no_fingerprint():
    with pytest.raises(TypeError):
        store.fingerprint(model=object())


def test_a_file_is_finished_only_with_the_expected_fingerprint(tmp_path):
    path = tmp_path / "x.safetensors"
    assert not store.is_finished(path, "f")
    write(path, {"fingerprint": "f"})
    assert store.is_finished(path, "f") and not store.is_finished(path, "g")
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.is_finished(path, "f")


def test_digests_are_the_first_digits_of_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert store.digest("abc") == store.digest(b"abc") == store.file_digest(tmp_path / "x") == "ba7816bf8f01cfea"


def test_a_json_artefact_keeps_its_keys_in_order_and_its_letters_readable(tmp_path):
    store.write_json(tmp_path / "x.json", {"z": "größe", "a": 1}, CARD)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "größe" in text and list(json.loads(text)) == ["z", "a", "card"]
