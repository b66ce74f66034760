"""The dictionary on random weights differs from the others in the models alone, and can be told from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import bank, batch_topk

from reasondiff.config import PARTS
from reasondiff.dictionaries.crosscoder import save_crosscoder
from reasondiff.dictionaries.untrained import train_untrained, with_its_models
from reasondiff.models.load import info_to_json, load_model, read_info
from reasondiff.models.untrained import open_untrained_stream, write_untrained
from reasondiff.store import ArtefactError, write_json
from reasondiff.text.tokens import save_tokens, select

BANK = bank(latents=24, tokens=999_999, batch_tokens=64, buffer_tokens=256, points={"btk": batch_topk(k=4)})
TOKENS = 6400


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_models, numbers_table, stream_settings):
    """(models, tokens, alignment, layers) and how they are read."""
    folder = tmp_path_factory.mktemp("untrained")
    models = []
    for name in ("qwen2", "other"):
        models.append(str(folder / f"{name}.json"))
        write_json(models[-1], info_to_json(small_models[name]))
    table = select(numbers_table, np.flatnonzero(numbers_table.part != PARTS.index("report")))
    save_tokens(folder / "tokens.npz", table, {})
    write_json(folder / "alignment.json", {"ids_digest": table.ids_digest(), "foreign_ids": []})
    settings = stream_settings().model_dump(mode="json")
    reading = {"stream": settings, "context": 200, "device": "cpu", "dtype": "float32"}
    return (models, str(folder / "tokens.npz"), str(folder / "alignment.json"), [1]), reading


def weights_of(path, layers=3):
    info = read_info(path)
    return dict(load_model(info, "cpu", "float32", layers=layers).named_parameters())


@pytest.fixture(scope="module")
def trained(files):
    places, reading = files
    stream = open_untrained_stream(*places, 5, **reading)
    return train_untrained(BANK, "btk", 1, 5, TOKENS, stream, 200, "code"), stream


def test_random_copies_have_the_architecture_and_none_of_the_weights(files, tmp_path):
    models, *_ = files[0]
    copies = write_untrained(models, 0, tmp_path)
    for original, copy in zip(models, copies, strict=True):
        before, after = weights_of(original), weights_of(copy)
        assert {name: one.shape for name, one in before.items()} == {name: one.shape for name, one in after.items()}
        matrices = [name for name, one in before.items() if one.ndim == 2]
        assert any("embed" in name for name in matrices)
        cosines = [torch.cosine_similarity(before[n].flatten(), after[n].flatten(), dim=0).abs() for n in matrices]
        assert max(cosines) < 0.25
        assert read_info(copy).weights_digest != read_info(original).weights_digest


def test_each_side_gets_a_draw_of_its_own_even_of_one_model(files, tmp_path):
    models, *_ = files[0]
    one, other = map(weights_of, write_untrained([models[0], models[0]], 0, tmp_path))
    (embedding,) = [name for name in one if name.endswith("embed_tokens.weight")]
    assert not torch.equal(one[embedding], other[embedding])


def test_equal_seeds_give_equal_models_and_no_other_randomness_is_touched(files, tmp_path):
    models, *_ = files[0]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    digests = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        copies = write_untrained(models, seed, tmp_path / place)
        digests.append([read_info(path).weights_digest for path in copies])
    assert torch.equal(torch.rand(3), expected)
    assert digests[0] == digests[1] and not set(digests[0]) & set(digests[2])


def test_the_dictionary_is_the_named_point_with_its_own_number_of_tokens(trained):
    crosscoder, stream = trained
    assert (crosscoder.n_latents, crosscoder.k, crosscoder.n_models, crosscoder.width) == (24, 4, 2, 16)
    assert crosscoder.card["untrained"] == {"seed": 5} and crosscoder.card["tokens_seen"] == TOKENS
    assert crosscoder.card["bank"]["tokens"] == TOKENS and crosscoder.threshold > 0
    assert [name for name, _ in crosscoder.card["models"]] == ["qwen2, random weights", "other, random weights"]
    assert stream.layers == [1]


def test_it_explains_some_of_what_random_models_do(trained):
    crosscoder, stream = trained
    block = next(iter(stream(stream.table.documents_of("train"))))
    x = block.activations[1][block.kept]
    error = (crosscoder.decode(crosscoder.encode(x)) - x).square().sum()
    assert error < 0.8 * (x - x.mean(0)).square().sum()


def test_its_models_are_drawn_again_from_its_card(trained, files, tmp_path):
    (places, reading), (crosscoder, stream) = files, trained
    path = tmp_path / "untrained" / "crosscoder.safetensors"
    save_crosscoder(path, crosscoder)
    for given in (str(path), [str(path)]):
        found, again = with_its_models(given, *places, **reading)
        assert torch.equal(found.encoder, crosscoder.encoder)
        documents = stream.table.documents_of("calibrate")
        one, two = (next(iter(each(documents))).activations[1] for each in (stream, again))
        assert torch.equal(one, two)
    assert with_its_models([], *places, **reading) is None


def test_other_models_than_it_learnt_from_are_refused(trained, files, tmp_path):
    (places, reading), (crosscoder, _) = files, trained
    path = tmp_path / "crosscoder.safetensors"
    save_crosscoder(path, crosscoder)
    (models, *rest) = places
    with pytest.raises(ArtefactError, match="learnt from the random models"):
        with_its_models([str(path)], models[::-1], *rest, **reading)
    crosscoder.card["untrained"]["seed"] = 6
    save_crosscoder(path, crosscoder)
    with pytest.raises(ArtefactError, match="learnt from the random models"):
        with_its_models([str(path)], *places, **reading)
    del crosscoder.card["untrained"]
    save_crosscoder(path, crosscoder)
    with pytest.raises(ArtefactError, match="not made by train_untrained"):
        with_its_models([str(path)], *places, **reading)


def test_a_point_that_the_bank_does_not_have_is_refused(trained):
    with pytest.raises(ArtefactError, match="no point 'l1'; it has btk"):
        train_untrained(BANK, "l1", 1, 0, TOKENS, trained[1], 200, "code")
