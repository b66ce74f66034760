"""What sparsify is given to train on is the inputs and outputs of MLPs, document by document, and what it leaves on
disk is what is read."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from streams import made_up_table

from reasondiff.config import Schedule, TranscoderPoint
from reasondiff.dictionaries.peer import Rows, from_peer, reading_order, train_with_sparsify, unused_id
from reasondiff.dictionaries.transcoder import load_transcoder
from reasondiff.models.load import ModelError, load_model
from reasondiff.models.mlp import find_mlp

with contextlib.redirect_stdout(io.StringIO()):  # it says on import that it has no triton
    import sparsify

POINT = TranscoderPoint(expansion=3, k=5, learning_rate=1e-3)
DOCUMENTS = np.arange(18)


def schedule(**changes) -> Schedule:
    settings = {"tokens": 3000, "batch_tokens": 300, "buffer_tokens": 600, "warmup_share": 0.1, "decay_share": 0.2}
    return Schedule(**{**settings, "gradient_clip": 1.0, "checkpoint_minutes": 5.0, **changes})


@pytest.fixture(scope="module")
def model(small_models):
    return load_model(small_models["qwen2"], "cpu", "float32")


@pytest.fixture(scope="module")
def train(model, numbers_table):
    """`train(folder, layers=(0, 2), ...)`: trains on the documents of `numbers_table`, of 40 to 100 tokens."""

    def run(folder, layers=(0, 2), table=numbers_table, foreign=(), seed=0, context=200, model=model, **changes):
        arguments = (model, table, DOCUMENTS[: len(table)], foreign, POINT, layers, seed, schedule(**changes))
        return train_with_sparsify(
            *arguments, auxiliary_weight=1 / 32, stale_after_tokens=2000, context=context, folder=folder
        )

    return run


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """Two layers' folders, trained in one pass."""
    return train(tmp_path_factory.mktemp("peer") / "seed0")


@pytest.fixture
def inside(monkeypatch):
    """Spies on sparsify: `.trainer` it made and `.seen`, the (input, output) of each call of a transcoder, in order."""
    spy = SimpleNamespace(trainer=None, seen=[])

    class Watched(sparsify.Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            spy.trainer = self

    forward = sparsify.SparseCoder.forward

    def watched_forward(self, x, y, **rest):
        spy.seen.append((x.clone(), y.clone()))
        return forward(self, x, y, **rest)

    monkeypatch.setattr(sparsify, "Trainer", Watched)
    monkeypatch.setattr(sparsify.SparseCoder, "forward", watched_forward)
    return spy


@torch.no_grad()
def mlp_of(model, table, layer, documents, foreign=(), context=200) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and outputs of an MLP on each document alone, foreign ids left out; the oracle."""
    caught = []
    handle = find_mlp(model, layer).register_forward_hook(lambda _, given, out: caught.append((given[0][0], out[0])))
    kept = []
    for document in documents:
        ids = table.ids[table.starts[document] : table.starts[document + 1]][:context]
        model(torch.from_numpy(ids.astype(np.int64))[None])
        kept.append(torch.from_numpy(~np.isin(ids, list(foreign))))
    handle.remove()
    given, out = (torch.cat([pair[side][k] for pair, k in zip(caught, kept, strict=True)]) for side in (0, 1))
    return given, out


# ------------------------------------------------------------------------------------------------ checkpoints


def test_each_layer_has_a_folder_that_reads_as_sparsify_reads_it(trained, model, numbers_table):
    assert set(trained) == {0, 2}
    for layer, folder in trained.items():
        assert folder.name == f"layers.{layer}.mlp"
        transcoder, coder = load_transcoder(folder), sparsify.SparseCoder.load_from_disk(folder)
        assert (transcoder.n_latents, transcoder.width, transcoder.k) == (48, 16, 5)
        assert torch.equal(transcoder.encoder, coder.encoder.weight)
        assert torch.equal(transcoder.skip, coder.W_skip) and bool(transcoder.skip.any())
        given, out = mlp_of(model, numbers_table, layer, DOCUMENTS[:3])
        torch.testing.assert_close(transcoder(given), coder(given, out).sae_out.detach(), atol=1e-5, rtol=1e-5)


def test_the_card_names_the_trainer_and_its_version(trained):
    transcoder = from_peer(trained[2], {"layer": 2, "trainer": "?"})
    assert transcoder.card == {"layer": 2, "trainer": f"eai-sparsify {sparsify.__version__}"}
    assert torch.equal(transcoder.decoder, load_transcoder(trained[2]).decoder)


def test_what_it_learns_is_the_mlp_of_the_layer_and_not_of_another(train, model, numbers_table, tmp_path):
    """Unexplained variance on the training documents: low on the layer's own MLP, over 1 on another."""
    folders = train(tmp_path, tokens=40_000)

    def unexplained(layer, folder):
        given, out = mlp_of(model, numbers_table, layer, DOCUMENTS)
        error = load_transcoder(folder)(given) - out
        return float(error.square().sum() / (out - out.mean(0)).square().sum())

    assert unexplained(0, folders[0]) < 0.3 and unexplained(2, folders[2]) < 0.3
    assert unexplained(0, folders[2]) > 1 and unexplained(2, folders[0]) > 1


def test_one_pass_over_the_text_gives_each_layer_what_a_pass_of_its_own_gives(train, trained, tmp_path):
    for layer, folder in trained.items():
        alone = load_transcoder(train(tmp_path / str(layer), layers=[layer])[layer])
        together = load_transcoder(folder)
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias", "skip"):
            assert torch.equal(getattr(alone, name), getattr(together, name))


def test_another_seed_gives_other_weights_and_another_order(train, trained, numbers_table, tmp_path):
    other = load_transcoder(train(tmp_path, seed=1)[0])
    assert not torch.allclose(other.encoder, load_transcoder(trained[0]).encoder, atol=0.05)
    orders = [reading_order(numbers_table, DOCUMENTS, [], schedule(), 200, seed)[0] for seed in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])


def test_the_weights_on_disk_are_averages_and_those_in_memory_are_not(train, inside, tmp_path):
    transcoder = load_transcoder(train(tmp_path, layers=[1])[1])
    in_memory = inside.trainer.saes["layers.1.mlp"].W_dec
    assert not torch.allclose(transcoder.decoder, in_memory, atol=1e-4)
    for optimizer in inside.trainer.optimizers:
        optimizer.eval()  # brings the average into memory
    torch.testing.assert_close(transcoder.decoder, in_memory.detach())


def test_the_settings_reach_sparsify(train, inside, tmp_path):
    train(tmp_path, seed=3, foreign=[7, 5])
    settings = inside.trainer.cfg
    assert settings.hookpoints == ["layers.0.mlp", "layers.2.mlp"] and settings.init_seeds == [3]
    assert (settings.auxk_alpha, settings.dead_feature_threshold) == (1 / 32, 2000)
    assert settings.optimizer == "signum" and settings.lr is None and settings.loss_fn == "fvu"
    assert settings.sae.transcode and settings.sae.skip_connection and not settings.log_to_wandb
    assert (settings.sae.k, settings.sae.expansion_factor) == (5, 3)


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("context", [200, 40])  # 40: documents are cut
def test_training_sees_the_tokens_of_each_document_alone_and_no_filling(
    train, inside, model, numbers_table, tmp_path, context
):
    foreign = [int(numbers_table.ids[4]), int(numbers_table.ids[-3])]
    train(tmp_path, foreign=foreign, context=context)
    order, batch_rows = reading_order(numbers_table, DOCUMENTS, foreign, schedule(), context, 0)
    assert batch_rows > 1 and len(inside.seen) == 2 * len(order) / batch_rows
    for layer, calls in ((0, inside.seen[::2]), (2, inside.seen[1::2])):
        given, out = mlp_of(model, numbers_table, layer, order, foreign, context)
        torch.testing.assert_close(torch.cat([x for x, _ in calls]), given, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.cat([y for _, y in calls]), out, atol=1e-5, rtol=1e-4)


def test_a_row_is_one_document_filled_up_on_the_right(numbers_table):
    rows = Rows(numbers_table, np.array([3, 0, 3]), 120, padding=417)
    length = int(numbers_table.lengths()[3])
    first = numbers_table.ids[numbers_table.starts[3] :][:length].tolist()
    assert len(rows) == 3 and length < 120
    assert rows[0]["input_ids"].tolist() == rows[2]["input_ids"].tolist() == first + [417] * (120 - length)


def test_the_filling_is_the_smallest_id_that_occurs_in_no_document(numbers_table):
    used = set(numbers_table.ids.tolist())
    expected = next(number for number in range(420) if number not in used)
    assert unused_id(numbers_table, 420) == expected
    with pytest.raises(ModelError, match="each of the model's 3 ids occurs in the text"):
        unused_id(replace(numbers_table, ids=np.array([0, 2, 1, 9], dtype=np.int32)), 3)


@pytest.mark.parametrize("tokens", [1, 500, 30_000])  # of one document, of some, of many rounds
@pytest.mark.parametrize("foreign", [(), (3, 7, 11)])
def test_as_many_native_tokens_are_read_as_the_schedule_says_in_whole_batches(tokens, foreign):
    table = made_up_table()
    documents = table.documents_of("train")
    order, batch_rows = reading_order(table, documents, foreign, schedule(tokens=tokens), 50, 0)
    native = [
        int((~np.isin(table.ids[table.starts[d] : table.starts[d + 1]][:50], foreign)).sum()) for d in order.tolist()
    ]
    assert len(order) % batch_rows == 0
    assert sum(native) >= tokens > sum(native[:-batch_rows])
    assert np.mean(native) * batch_rows == pytest.approx(300, rel=0.3)
    assert set(order.tolist()) <= set(documents.tolist())
    if tokens == 30_000:  # each round has every document once
        assert sorted(order[: len(documents)].tolist()) == sorted(documents.tolist())


def test_long_documents_and_small_batches_make_batches_of_one_row(numbers_table):
    assert reading_order(numbers_table, DOCUMENTS, [], schedule(batch_tokens=1), 200, 0)[1] == 1


# ------------------------------------------------------------------------------------------------ side effects


def test_what_it_sets_and_prints_does_not_reach_the_rest_of_the_process(train, tmp_path, capsys, caplog):
    torch.set_float32_matmul_precision("highest")
    with torch.random.fork_rng(), caplog.at_level(logging.INFO):
        torch.manual_seed(123)
        before = torch.get_rng_state()
        train(tmp_path, layers=[0], tokens=600)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_float32_matmul_precision() == "highest"
    assert capsys.readouterr() == ("", "")
    said = [record.getMessage() for record in caplog.records]
    assert "sparsify: Training on modules: ['layers.0.mlp']" in said
    assert sum("Training:" in line for line in said) == 1  # the bar is not repeated for every step


# ------------------------------------------------------------------------------------------------ refusals


def test_without_sparsify_the_error_says_how_to_install_it(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sparsify", None)
    with pytest.raises(ModelError, match=r'pip install "reasondiff\[sparsify\]"'):
        train(tmp_path)


def test_a_layer_that_the_model_has_not_is_refused(train, tmp_path):
    with pytest.raises(ModelError, match=r"the model has 3 layers \(0 to 2\); layer\(s\) \[3, 5\]"):
        train(tmp_path, layers=[0, 3, 5])


def test_half_precision_on_a_cpu_is_refused(train, small_models, tmp_path):
    with pytest.raises(ModelError, match="float32 only, the model is in torch.bfloat16"):
        train(tmp_path, model=load_model(small_models["qwen2"], "cpu", "bfloat16"))


def test_an_architecture_whose_mlps_are_not_known_is_refused(train, model, tmp_path):
    with pytest.raises(ModelError, match="the MLPs of Qwen2Model are not known"):
        train(tmp_path, model=model.model)


def test_a_text_without_native_tokens_is_refused(train, numbers_table, tmp_path):
    with pytest.raises(ModelError, match="no token to train on"):
        train(tmp_path, foreign=np.unique(numbers_table.ids).tolist())
