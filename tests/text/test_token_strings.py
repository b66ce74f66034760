"""Every id is shown as the string it stands for by itself."""

from __future__ import annotations

import pytest

from reasondiff.models.load import save_tokenizer
from reasondiff.store import ArtefactError
from reasondiff.text.bpe import THINK, USER
from reasondiff.text.token_strings import token_strings


@pytest.fixture(scope="module")
def path(small_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(small_tokenizer, folder)
    return folder / "tokenizer.json"


def test_every_id_has_the_string_that_decoding_it_alone_gives(path, small_tokenizer):
    words = token_strings(path)
    assert len(words) == len(small_tokenizer)
    assert words == [
        small_tokenizer.decode([number], clean_up_tokenization_spaces=False) for number in range(len(words))
    ]


def test_spaces_and_special_tokens_are_kept(path, small_tokenizer):
    words = token_strings(path)
    ids = small_tokenizer.encode("Think of a number", add_special_tokens=False)
    assert "".join(words[number] for number in ids) == "Think of a number"
    for token in (USER, THINK):
        assert words[small_tokenizer.convert_tokens_to_ids(token)] == token


def test_what_is_no_tokenizer_is_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"tokenizer\.json is missing"):
        token_strings(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        token_strings(tmp_path / "tokenizer.json")
