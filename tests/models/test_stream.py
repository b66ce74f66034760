"""Activations of a packed stream are those of the framework, model beside model, with masks where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reasondiff.models.load import ModelError, load_model
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, block_output, calibrate, unmasked


@pytest.fixture
def open_stream(small_models, numbers_table, stream_settings):
    """`open_stream("qwen2", "llama", layers=[0, 1])` over the documents of `numbers_table`."""

    def make(*names, layers=(0, 1), foreign=(), table=numbers_table, place="block", **settings):
        infos = [small_models[name] for name in names]
        return ActivationStream(
            infos, list(layers), table, list(foreign), stream_settings(**settings), 200, "cpu", "float32", place
        )

    return make


EVERYTHING = np.arange(18)


@pytest.mark.parametrize("names", [("qwen2", "other"), ("llama", "qwen2")])
@torch.no_grad()
def test_layer_n_is_hidden_state_n_plus_1_of_the_framework(open_stream, small_models, numbers_table, names):
    stream = open_stream(*names)
    reference = [load_model(small_models[name], "cpu", "float32") for name in names]
    seen = 0
    for block in stream(EVERYTHING):
        for document in block.document.unique().tolist():
            here = block.document == document
            ids = torch.from_numpy(numbers_table.ids[block.token[here].numpy()].astype(np.int64))[None]
            for side, model in enumerate(reference):
                states = model.model(ids, output_hidden_states=True).hidden_states
                for layer in (0, 1):
                    ours = block.activations[layer][here, side]
                    torch.testing.assert_close(ours, states[layer + 1][0], atol=1e-5, rtol=1e-5)
            seen += int(here.sum())
    assert seen == len(numbers_table.ids)


@torch.no_grad()
def test_the_last_layer_is_the_block_output_before_the_final_norm(open_stream, small_models, numbers_table):
    block = next(iter(open_stream("qwen2", layers=[2])(EVERYTHING[:1])))
    model = load_model(small_models["qwen2"], "cpu", "float32")
    after_norm = model.model(torch.from_numpy(numbers_table.ids[block.token.numpy()].astype(np.int64))[None])
    torch.testing.assert_close(model.model.norm(block.activations[2][:, 0]), after_norm.last_hidden_state[0])
    assert not torch.allclose(block.activations[2][:, 0], after_norm.last_hidden_state[0], atol=1e-2)


def test_models_are_shortened_after_the_deepest_layer_wanted(open_stream):
    stream = open_stream("qwen2", "llama", layers=[1, 0, 1])
    assert stream.layers == [0, 1] and [len(model.model.layers) for model in stream.models] == [2, 2]


def test_the_order_of_the_models_is_the_order_of_the_sides(open_stream):
    first = next(iter(open_stream("qwen2", "other")(EVERYTHING[:2])))
    second = next(iter(open_stream("other", "qwen2")(EVERYTHING[:2])))
    assert torch.equal(first.activations[1], second.activations[1].flip(1))
    assert not torch.allclose(first.activations[1][:, 0], first.activations[1][:, 1])


def test_reading_twice_gives_equal_blocks(open_stream):
    stream = open_stream("qwen2", "llama")
    pairs = list(zip(stream(EVERYTHING), stream(EVERYTHING), strict=True))
    assert len(pairs) > 1
    for first, second in pairs:
        assert torch.equal(first.token, second.token)
        assert all(torch.equal(first.activations[layer], second.activations[layer]) for layer in (0, 1))


def test_one_model_shifted_by_a_token_reads_something_else(open_stream):
    block = next(iter(open_stream("qwen2", "qwen2")(EVERYTHING)))
    x = block.activations[1]
    assert torch.equal(x[:, 0], x[:, 1])
    assert not torch.allclose(x[1:, 0], x[:-1, 1], atol=0.1)


def test_models_of_different_width_are_refused_with_their_widths(open_stream):
    with pytest.raises(ModelError, match="one width; these have qwen2: 16, wide: 24"):
        open_stream("qwen2", "wide")


def test_a_layer_that_a_model_lacks_is_refused(open_stream):
    with pytest.raises(ModelError, match="layer 3 was asked for"):
        open_stream("qwen2", "llama", layers=[0, 3])


def test_a_block_may_be_a_tensor_or_a_tuple():
    x = torch.ones(2)
    assert block_output(x) is x and block_output((x, None)) is x


# ------------------------------------------------------------------------------------------- MLPs


@torch.no_grad()
def mlps_by_hand(model, ids: np.ndarray, layers) -> dict[int, torch.Tensor]:
    """{layer: [token, 2, unit]} of one document: what goes into each MLP is the norm, written out, of the residual
    stream after attention; what comes out is what the block's output has beyond it. Not for the last block, whose
    hidden state is after the final norm."""
    after_attention, blocks = {}, model.model.layers
    handles = [
        blocks[layer].post_attention_layernorm.register_forward_pre_hook(
            lambda _, arguments, layer=layer: after_attention.update({layer: arguments[0][0]})
        )
        for layer in layers
    ]
    states = model.model(torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    found = {}
    for layer in layers:
        residual, norm = after_attention[layer], blocks[layer].post_attention_layernorm
        given = norm.weight * residual / (residual.square().mean(1, keepdim=True) + norm.variance_epsilon).sqrt()
        found[layer] = torch.stack([given, states[layer + 1][0] - residual], dim=1)
    return found


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_an_mlp_gives_its_input_after_the_norm_and_its_output(open_stream, small_models, numbers_table, name):
    """With norms that also weigh the units differently, as trained ones do."""
    stream, model = open_stream(name, place="mlp"), load_model(small_models[name], "cpu", "float32")
    for each in (stream.models[0], model):
        for layer in (0, 1):
            each.model.layers[layer].post_attention_layernorm.weight.data = torch.linspace(0.2, 3, 16)
    seen = 0
    for block in stream(EVERYTHING):
        for document in block.document.unique().tolist():
            here = block.document == document
            expected = mlps_by_hand(model, numbers_table.ids[block.token[here].numpy()], (0, 1))
            for layer in (0, 1):
                torch.testing.assert_close(block.activations[layer][here], expected[layer], atol=1e-5, rtol=1e-5)
            seen += int(here.sum())
    assert seen == len(numbers_table.ids)
    assert block.activations[0].shape == (len(block.token), 2, 16)


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_the_mlp_itself_makes_its_output_of_its_input(open_stream, name):
    """At the deepest layer too, where the model is cut off."""
    stream = open_stream(name, layers=[0, 2], place="mlp")
    for block in stream(EVERYTHING[:6]):
        for layer in (0, 2):
            given, output = block.activations[layer].unbind(1)
            torch.testing.assert_close(stream.models[0].model.layers[layer].mlp(given), output, atol=1e-6, rtol=1e-5)
            assert (given - output).abs().mean() > 0.1


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_the_mlps_read_a_packed_document_as_they_read_it_alone(open_stream, name):
    stream = open_stream(name, layers=[0, 1, 2], place="mlp")
    packed = list(stream(EVERYTHING))
    assert any(len(block.document.unique()) > 3 for block in packed)  # of three rows
    for document in EVERYTHING:
        (alone,) = stream(np.array([document]))
        block = next(block for block in packed if (block.document == int(document)).any())
        here = block.document == int(document)
        assert torch.equal(block.token[here], alone.token)
        for layer in (0, 1, 2):
            torch.testing.assert_close(block.activations[layer][here], alone.activations[layer], atol=1e-5, rtol=1e-5)


def test_the_mlps_are_masked_as_the_blocks_are(open_stream):
    for of_mlps, of_blocks in zip(
        open_stream("qwen2", place="mlp", foreign=[5])(EVERYTHING),
        open_stream("qwen2", foreign=[5])(EVERYTHING),
        strict=True,
    ):
        assert torch.equal(of_mlps.kept, of_blocks.kept) and torch.equal(of_mlps.token, of_blocks.token)


def test_mlps_have_two_sides_and_blocks_one_for_each_model(open_stream):
    assert open_stream("qwen2", place="mlp").n_sides == open_stream("qwen2", "llama").n_sides == 2
    assert open_stream("qwen2").n_sides == 1


def test_the_mlps_of_several_models_are_refused(open_stream):
    with pytest.raises(ModelError, match="the MLPs of one model are read at a time; these are 2"):
        open_stream("qwen2", "llama", place="mlp")


def test_the_mlps_of_an_unknown_architecture_are_refused_before_anything_is_read(open_stream, monkeypatch):
    class GPT2LMHeadModel(torch.nn.Module):
        pass

    monkeypatch.setattr("reasondiff.models.stream.load_model", lambda *_, **__: GPT2LMHeadModel())
    with pytest.raises(ModelError, match="GPT2LMHeadModel are not known") as caught:
        open_stream("qwen2", place="mlp")
    said = str(caught.value)
    assert all(
        name in said for name in ("LlamaForCausalLM", "Qwen2ForCausalLM", "MLPS in scripts/reasondiff/models/mlp.py")
    )
    open_stream("qwen2")  # its blocks may be read


# ------------------------------------------------------------------------------------------- some layers only


@pytest.mark.parametrize("place", ["mlp", "block"])
@pytest.mark.parametrize("layers", [[0], [1], [2, 0], [0, 1, 2]])
def test_some_layers_of_a_stream_give_what_the_whole_stream_gives_and_run_no_deeper_block(open_stream, place, layers):
    whole = open_stream("qwen2", layers=[0, 1, 2], place=place)
    expected = list(whole(EVERYTHING))
    blocks, runs = list(whole.models[0].model.layers), [0, 0, 0]
    for layer, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, layer=layer: runs.__setitem__(layer, runs[layer] + 1))
    for found, wanted in zip(whole.only(layers)(EVERYTHING), expected, strict=True):
        assert set(found.activations) == set(layers)
        assert all(torch.equal(found.activations[layer], wanted.activations[layer]) for layer in layers)
        assert torch.equal(found.token, wanted.token) and torch.equal(found.kept, wanted.kept)
    assert runs == [len(expected) if layer <= max(layers) else 0 for layer in range(3)]
    # and the whole stream is as it was
    assert whole.layers == [0, 1, 2] and list(whole.models[0].model.layers) == blocks
    assert torch.equal(next(whole(EVERYTHING)).activations[2], expected[0].activations[2])


def test_a_model_is_whole_again_after_a_reading_that_failed(open_stream):
    stream = open_stream("qwen2", layers=[0, 1, 2], place="mlp")
    stream.models[0].model.layers[0].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(stream.only([0])(EVERYTHING))
    assert len(stream.models[0].model.layers) == 3
    assert len(stream.models[0].model.layers[0].mlp._forward_hooks) == 1  # the failing one of this test


def test_layers_that_a_stream_does_not_read_are_refused(open_stream):
    with pytest.raises(ModelError, match=r"reads layers \[0, 1\]; \[2\] were asked for"):
        open_stream("qwen2", place="mlp").only([1, 2])


# ------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("first", [0, 2, 5])
def test_the_first_positions_of_every_document_are_not_kept(open_stream, first):
    for block in open_stream("qwen2", first_positions=first)(EVERYTHING):
        assert torch.equal(block.kept, block.position >= first)
        starts = torch.tensor([int(torch.nonzero(block.document == d)[0]) for d in block.document.unique()])
        assert (block.position[starts] == 0).all()


def test_foreign_ids_are_not_kept(open_stream, small_tokenizer, numbers_table):
    markers = small_tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    dropped = 0
    for block in open_stream("qwen2", foreign=markers)(EVERYTHING):
        is_marker = torch.from_numpy(np.isin(numbers_table.ids[block.token.numpy()], markers))
        assert torch.equal(block.kept, (block.position >= 2) & ~is_marker)
        dropped += int(is_marker.sum())
    assert dropped == 36  # two in each of 18 documents


def block_of_norms(norms):
    """One block at layer 0 whose tokens have these norms, [token, model]."""
    x = torch.tensor(norms)[:, :, None] * torch.tensor([0.6, 0.8])
    count = len(norms)
    place = torch.arange(count)
    return Block({0: x}, place, torch.zeros(count, dtype=torch.int64), place, torch.ones(count, dtype=torch.bool))


def test_a_token_of_huge_norm_in_either_model_is_a_sink(stream_settings):
    block = block_of_norms([[1.0, 2.0], [10.0, 20.0], [10.1, 2.0], [1.0, 20.1]])
    statistics = SiteStatistics(torch.tensor([1.0, 2.0]), torch.ones(2), torch.zeros(2, 2), 4)
    kept, sinks = unmasked(block, 0, statistics, stream_settings(norm_factor=10.0))
    assert sinks.tolist() == [False, False, True, True] and kept.tolist() == [True, True, False, False]


def test_a_token_that_is_not_kept_stays_out_without_being_a_sink(stream_settings):
    block = block_of_norms([[1.0, 1.0], [1.0, 1.0]])
    block.kept[0] = False
    statistics = SiteStatistics(torch.ones(2), torch.ones(2), torch.zeros(2, 2), 2)
    kept, sinks = unmasked(block, 0, statistics, stream_settings())
    assert kept.tolist() == [False, True] and sinks.tolist() == [False, False]


# ------------------------------------------------------------------------------------------- calibration


def test_the_scale_brings_the_mean_norm_of_unmasked_tokens_to_the_root_of_the_width(open_stream):
    stream = open_stream("qwen2", "llama")
    statistics = calibrate(stream, EVERYTHING, 10_000)
    for layer in (0, 1):
        blocks = list(stream(EVERYTHING))
        kept = torch.cat([unmasked(block, layer, statistics[layer], stream.settings)[0] for block in blocks])
        x = torch.cat([block.activations[layer] for block in blocks])
        scaled = x[kept] * statistics[layer].scale[:, None]
        torch.testing.assert_close(scaled.norm(dim=2).mean(0), torch.full((2,), 4.0))  # sqrt(16)
        torch.testing.assert_close(statistics[layer].mean, x[kept].mean(0))
        assert statistics[layer].tokens == len(x)


def test_medians_include_every_token_and_scales_leave_sinks_out(open_stream, monkeypatch):
    stream = open_stream("qwen2", "other", layers=[0], first_positions=0)
    norms = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [500.0, 5.0]]
    monkeypatch.setattr(ActivationStream, "__call__", lambda self, documents: iter([block_of_norms(norms)]))
    statistics = calibrate(stream, EVERYTHING, 100)[0]
    torch.testing.assert_close(statistics.median_norm, torch.full((2,), 3.0))
    # the last token is a sink of the first model and left out in both: mean norm 2.5, width 2
    torch.testing.assert_close(statistics.scale, torch.full((2,), 2**0.5 / 2.5))


def test_calibration_reads_just_the_tokens_asked_for(open_stream):
    few = calibrate(open_stream("qwen2"), EVERYTHING, 70)
    assert few[0].tokens == 70
    more_rows = calibrate(open_stream("qwen2"), EVERYTHING, 200)
    assert more_rows[0].tokens == 200 and not torch.equal(few[0].mean, more_rows[0].mean)


def test_calibration_on_nothing_is_an_error_that_says_why(open_stream):
    with pytest.raises(ModelError, match="`calibrate` part of the text is empty"):
        calibrate(open_stream("qwen2"), EVERYTHING[:0], 100)
    with pytest.raises(ModelError, match="every calibration token is masked"):
        calibrate(open_stream("qwen2", first_positions=1000), EVERYTHING, 100)


def test_activations_that_are_not_finite_are_refused_with_the_layer(open_stream):
    stream = open_stream("qwen2", "other")
    stream.models[1].model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="layer 1: activations are not finite"):
        calibrate(stream, EVERYTHING, 100)
