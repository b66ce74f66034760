"""A transcoder is the same function here, on disk, and in the library whose format it has."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reasondiff.dictionaries.transcoder import (
    CONFIG,
    TOKENS_AT_ONCE,
    WEIGHTS,
    Transcoder,
    hookpoint,
    load_transcoder,
    save_transcoder,
)
from reasondiff.store import ArtefactError

with contextlib.redirect_stdout(io.StringIO()):  # it says on import that it has no triton
    from sparsify import SparseCoder, SparseCoderConfig

WIDTH, K = 7, 4
X = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1))


def theirs(skip: bool = True, num_latents: int = 0, seed: int = 0) -> SparseCoder:
    """sparsify's transcoder with random weights; 4 latents per unit unless their number is given."""
    coder = SparseCoder(
        WIDTH,
        SparseCoderConfig(expansion_factor=4, num_latents=num_latents, k=K, transcode=True, skip_connection=skip),
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in coder.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return coder.requires_grad_(False)


def ours(skip: bool = True, latents: int = 28, card=None) -> Transcoder:
    generator = torch.Generator().manual_seed(2)
    make = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    weights = (make(latents, WIDTH), make(latents), make(latents, WIDTH), make(WIDTH))
    return Transcoder(*weights, make(WIDTH, WIDTH) if skip else None, K, card or {})


def their_code(coder: SparseCoder, x: torch.Tensor) -> torch.Tensor:
    """Their top k values, zeros among them, as a dense code."""
    encoded = coder.encode(x)
    return torch.zeros(len(x), coder.num_latents).scatter_(1, encoded.top_indices, encoded.top_acts)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("num_latents", [0, 30])  # 4 per unit, or a number that is no multiple of the width
def test_a_transcoder_saved_by_sparsify_is_the_same_function_here(tmp_path, skip, num_latents):
    coder = theirs(skip, num_latents)
    coder.save_to_disk(tmp_path)
    transcoder = load_transcoder(tmp_path)
    assert (transcoder.width, transcoder.n_latents, transcoder.k) == (WIDTH, num_latents or 28, K)
    torch.testing.assert_close(transcoder(X), coder(X, X).sae_out, atol=1e-5, rtol=0)
    torch.testing.assert_close(transcoder.encode(X).dense(), their_code(coder, X), atol=1e-5, rtol=0)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("latents", [28, 30, 5])  # fewer latents than units too
def test_a_transcoder_saved_here_is_the_same_function_in_sparsify(tmp_path, skip, latents):
    transcoder = ours(skip, latents)
    save_transcoder(tmp_path, transcoder)
    coder = SparseCoder.load_from_disk(tmp_path).requires_grad_(False)
    assert coder.cfg.k == K and coder.cfg.transcode and coder.num_latents == latents
    torch.testing.assert_close(coder(X, X).sae_out, transcoder(X), atol=1e-5, rtol=0)
    torch.testing.assert_close(their_code(coder, X), transcoder.encode(X).dense(), atol=1e-5, rtol=0)


def test_the_skip_is_output_unit_by_input_unit(tmp_path):
    """One latent that never fires, skip[0, 1] = 3: output unit 0 is 3 times input unit 1."""
    skip = torch.zeros(2, 2)
    skip[0, 1] = 3.0
    transcoder = Transcoder(torch.zeros(1, 2), torch.tensor([-1.0]), torch.ones(1, 2), torch.zeros(2), skip, 1, {})
    assert transcoder(torch.tensor([[5.0, 7.0]])).tolist() == [[21.0, 0.0]]
    save_transcoder(tmp_path, transcoder)
    assert SparseCoder.load_from_disk(tmp_path)(torch.tensor([[5.0, 7.0]])).sae_out.tolist() == [[21.0, 0.0]]


def test_weights_in_half_precision_are_read_as_single(tmp_path):
    coder = theirs().to(torch.bfloat16)
    coder.save_to_disk(tmp_path)
    transcoder = load_transcoder(tmp_path)
    assert transcoder.encoder.dtype == transcoder.skip.dtype == torch.float32
    torch.testing.assert_close(transcoder(X), coder.float()(X, X).sae_out, atol=1e-5, rtol=0)
    assert torch.equal(transcoder(X.bfloat16()), transcoder(X.bfloat16().float()))


def test_zeros_among_the_top_k_are_not_active(tmp_path):
    """In sparsify a token always has k entries; here those of value 0 are left out. The output is the same."""
    coder = theirs()
    coder.encoder.bias -= 5.0
    coder.save_to_disk(tmp_path)
    transcoder = load_transcoder(tmp_path)
    code, positive = transcoder.encode(X), (their_code(coder, X) > 0).sum(1)
    assert bool((code.values > 0).all())
    assert set(positive.tolist()) >= {0, 1, 2}  # tokens without any active latent too
    assert torch.equal(torch.bincount(code.rows, minlength=len(X)), positive)
    assert code.l0() == positive.float().mean() < K
    torch.testing.assert_close(transcoder(X), coder(X, X).sae_out, atol=1e-5, rtol=0)


def test_as_many_latents_as_k_is_a_relu(tmp_path):
    coder = theirs(num_latents=K)
    coder.save_to_disk(tmp_path)
    transcoder = load_transcoder(tmp_path)
    dense = torch.relu(X @ transcoder.encoder.T + transcoder.encoder_bias)
    torch.testing.assert_close(transcoder.encode(X).dense(), dense, atol=1e-5, rtol=0)
    torch.testing.assert_close(transcoder(X), coder(X, X).sae_out, atol=1e-5, rtol=0)


def test_more_tokens_than_are_decoded_at_once_give_what_each_gives_alone():
    transcoder = ours()
    x = torch.randn(TOKENS_AT_ONCE + 3, WIDTH, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(transcoder(x)[-5:], transcoder(x[-5:]), atol=1e-5, rtol=0)
    assert transcoder(x[:0]).shape == (0, WIDTH)


def test_the_card_survives_and_a_file_of_others_has_none(tmp_path):
    card = {"layer": 3, "point": {"k": K}, "digests": ["a", "b"]}
    save_transcoder(tmp_path / "ours", ours(card=card))
    theirs().save_to_disk(tmp_path / "theirs")
    assert load_transcoder(tmp_path / "ours").card == card
    assert load_transcoder(tmp_path / "theirs").card == {}


def test_a_layer_has_the_folder_that_sparsify_would_give_it():
    assert hookpoint(3) == "layers.3.mlp"


# ------------------------------------------------------------------------------------------------ refusals


@pytest.fixture
def saved(tmp_path) -> Path:
    """A whole transcoder that a test may break."""
    save_transcoder(tmp_path, ours())
    return tmp_path


def configure(folder: Path, **changes) -> None:
    """Changes settings in cfg.json; None removes one."""
    config = {**json.loads((folder / CONFIG).read_text()), **changes}
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def reweigh(folder: Path, **changes) -> None:
    """Replaces tensors (dots as double underscores); None removes one."""
    tensors = load_file(folder / WEIGHTS)
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": None}, "says k = None; expected a whole number"),
        ({"k": 0}, "says k = 0"),
        ({"k": "4"}, "says k = '4'"),
        ({"k": 29}, "has 28 latents, fewer than k = 29"),
        ({"transcode": False}, "says transcode: False, expected True"),
        ({"transcode": None}, "says transcode: None, expected True.*older than"),
        ({"activation": "groupmax"}, "activation: 'groupmax'; only topk"),
        ({"skip_connection": False}, "has W_skip, but cfg.json says skip_connection: False"),
        ({"gram_lookup": True}, "says gram_lookup: True"),
        ({"embed_skip": True}, "says embed_skip: True"),
    ],
)
def test_a_config_of_another_function_is_refused(saved, changes, message):
    configure(saved, **changes)
    with pytest.raises(ArtefactError, match=message):
        load_transcoder(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W_skip": None}, "has no W_skip, but cfg.json says skip_connection: True"),
        ({"W_skip": torch.zeros(7, 6)}, r"W_skip has shape \(7, 6\), expected \(7, 7\)"),
        ({"W_dec": torch.zeros(7, 28)}, r"W_dec has shape \(7, 28\), expected \(28, 7\)"),
        ({"encoder__bias": torch.zeros(7)}, r"encoder.bias has shape \(7,\), expected \(28,\)"),
        ({"b_dec": torch.zeros(28)}, r"b_dec has shape \(28,\), expected \(7,\)"),
        ({"encoder__weight": torch.zeros(28)}, "encoder.weight has 1 dimensions, expected 2"),
        ({"W_dec": None, "b_dec": None}, "lacks W_dec, b_dec"),
        ({"post_encoder": torch.zeros(28)}, "has post_encoder besides: it is another function"),
        ({"b_dec": torch.full((7,), torch.nan)}, "b_dec has values that are not finite"),
        ({"W_dec": torch.full((28, 7), torch.inf)}, "W_dec has values that are not finite"),
    ],
)
def test_tensors_that_are_no_transcoder_are_refused_by_name(saved, changes, message):
    reweigh(saved, **changes)
    with pytest.raises(ArtefactError, match=message):
        load_transcoder(saved)


def test_a_missing_or_broken_file_is_named(saved):
    for content in ("{", "[1]"):
        (saved / CONFIG).write_text(content)
        with pytest.raises(ArtefactError, match="cfg.json .*JSON"):
            load_transcoder(saved)
    (saved / CONFIG).unlink()
    with pytest.raises(ArtefactError, match="cfg.json is missing: without it k is not known"):
        load_transcoder(saved)
    save_transcoder(saved, ours())
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(ArtefactError, match="sae.safetensors cannot be read"):
        load_transcoder(saved)
    (saved / WEIGHTS).unlink()
    with pytest.raises(ArtefactError, match="sae.safetensors is missing"):
        load_transcoder(saved)
