"""Training with hand-written sparse gradients equals training with autograd on the dense formulas, finds planted MLPs,
and revives latents that have died."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import pytest
import torch
from mlps import (
    WIDTH,
    PlantedMlp,
    schedule,
    statistics_of,
    transcoder_point,
    unexplained,
    unexplained_by_a_linear_map,
)
from torch.profiler import ProfilerActivity, profile

from reasondiff.dictionaries.replacements import AffineMap
from reasondiff.dictionaries.transcoder_trainer import Recipe, TranscoderTrainer, Workspace, initial_weights

with contextlib.redirect_stdout(io.StringIO()):  # it says on import that it has no triton
    from sparsify import SparseCoder, SparseCoderConfig

LATENTS, TOKENS = 4 * WIDTH, 23
UNCLIPPED = schedule(gradient_clip=1e9)
PARAMETERS = ("encoder", "encoder_bias", "decoder", "decoder_bias", "skip")
NO_REVIVAL = Recipe(auxiliary_weight=0.0, stale_after_tokens=1000, selection="float32")
REVIVAL = replace(NO_REVIVAL, auxiliary_weight=0.5)
ROUGH = replace(NO_REVIVAL, selection="bfloat16")


def inputs(seed: int = 0, dtype=torch.float64, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randn(tokens, 2, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_trainer(dtype=torch.float64, settings=UNCLIPPED, recipe=NO_REVIVAL, **point):
    """A trainer with random biases, decoder and skip, so that no mixed-up gradient goes unnoticed."""
    chosen, statistics = transcoder_point(**point), statistics_of(inputs(9, torch.float32))
    trainer = TranscoderTrainer(chosen, settings, recipe, statistics, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
            parameter.data = (parameter.double() + noise).to(dtype)
    trainer.optimizer = torch.optim.Adam(trainer.parameters(), lr=chosen.learning_rate, betas=(0.9, 0.999), fused=True)
    return trainer


def make_stale(trainer, latents) -> torch.Tensor:
    """Marks latents as silent for long, in a training that has gone on for as long; returns the mask."""
    trainer.steps = 1 + trainer.recipe.stale_after_tokens // TOKENS
    trainer.idle_tokens[list(latents)] = 10**9
    return trainer.stale()


def largest_alone(responses, count):
    """The `count` largest of each row, zeros elsewhere."""
    return torch.zeros_like(responses).scatter(1, responses.topk(count).indices, 1.0) * responses


def dense_loss(trainer, x, stale) -> torch.Tensor:
    """The oracle: docs/methods.md §6 as it is written, with dense [token, latent] codes."""
    given, wanted = x.unbind(1)
    responses = given @ trainer.encoder.T + trainer.encoder_bias
    f = torch.relu(largest_alone(responses, trainer.point.k))
    error = wanted - (f @ trainer.decoder + trainer.decoder_bias + given @ trainer.skip.T)
    loss = error.square().mean()
    if trainer.recipe.auxiliary_weight and stale.any():
        best = largest_alone(responses[:, stale], min(WIDTH // 2, int(stale.sum())))  # no ReLU
        weight = trainer.recipe.auxiliary_weight * min(1.0, int(stale.sum()) / (WIDTH // 2))
        loss = loss + weight * (error.detach() - best @ trainer.decoder[stale]).square().mean()
    return loss


def gradients(trainer, x, stale_latents=()) -> dict[str, torch.Tensor]:
    """Those of one step, by hand."""
    make_stale(trainer, stale_latents)
    trainer.step(x)
    return {name: getattr(trainer, name).grad.clone() for name in PARAMETERS}


def compare(stale_latents=(), change=lambda trainer: None, **settings):
    trainer, oracle = make_trainer(**settings), make_trainer(**settings)
    change(trainer), change(oracle)
    x, stale = inputs(), make_stale(trainer, stale_latents)
    expected = dense_loss(oracle, x, stale)
    expected.backward()
    assert trainer.step(x)["loss"] == pytest.approx(expected.item(), rel=1e-9)
    for name in PARAMETERS:
        by_hand, by_autograd = getattr(trainer, name).grad, getattr(oracle, name).grad
        torch.testing.assert_close(by_hand, by_autograd, rtol=1e-6, atol=1e-10)
        assert by_autograd.abs().max() > 0


# ------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("k", [1, 3, 12, LATENTS])  # 3 of 48 are sparse, 12 dense
def test_gradients_by_hand_equal_autograd_on_the_dense_formulas(k):
    compare(k=k)


STALE_SETS = [(3,), (0, 5), (0, 5, 9, 17, 30, 47), tuple(range(0, LATENTS, 2)), tuple(range(LATENTS))]


@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize("stale", STALE_SETS, ids=len)  # of one and two the loss is scaled by 1/6 and 1/3
def test_gradients_with_stale_latents_equal_autograd(stale, k):
    compare(stale, recipe=REVIVAL, k=k)


def push_below_zero(trainer):
    trainer.encoder_bias.data[::2] -= 10.0


def test_gradients_with_stale_latents_that_answer_negatively_alone_equal_autograd():
    compare(tuple(range(0, LATENTS, 2)), push_below_zero, recipe=REVIVAL, k=3)


def test_the_residual_counts_as_a_constant_in_the_auxiliary_loss():
    """Bias, skip, and the latents that are not stale get from it nothing."""
    stale = (0, 5, 9)
    with_it = gradients(make_trainer(recipe=REVIVAL, k=3), inputs(), stale)
    without = gradients(make_trainer(k=3), inputs(), stale)
    for name in ("decoder_bias", "skip"):
        assert torch.equal(with_it[name], without[name])
    others = [latent for latent in range(LATENTS) if latent not in stale]
    for name in ("encoder", "encoder_bias", "decoder"):
        assert torch.equal(with_it[name][others], without[name][others])
        assert not torch.isclose(with_it[name][list(stale)], without[name][list(stale)]).any()


def test_few_stale_latents_weigh_less():
    """One of six (half the width) has a sixth of the weight; from six on the weight is whole."""

    def auxiliary(stale, weight=0.5):
        trainer = make_trainer(recipe=replace(REVIVAL, auxiliary_weight=weight), k=3)
        for latent in stale:
            trainer.decoder.data[latent] = 0.0  # so that they reconstruct nothing, whichever they are
        mask = make_stale(trainer, stale)
        metrics = trainer.step(inputs())
        error_loss = metrics["loss"] - metrics["auxiliary"]
        assert metrics["stale"] == pytest.approx(int(mask.sum()) / LATENTS)
        return metrics["auxiliary"] / error_loss

    assert auxiliary((3,)) == pytest.approx(0.5 / 6)
    assert auxiliary((3, 7, 9)) == pytest.approx(0.5 / 2)
    assert auxiliary(range(6)) == pytest.approx(0.5) and auxiliary(range(0, LATENTS, 4)) == pytest.approx(0.5)
    assert auxiliary(range(6), weight=0.0) == 0.0


def test_the_auxiliary_loss_waits_until_a_latent_can_be_stale():
    """At the start nothing has fired yet; stale is who has not for 920 tokens of 23 a step: after 40 steps."""
    trainer = make_trainer(recipe=replace(REVIVAL, stale_after_tokens=40 * TOKENS), k=3)
    trainer.encoder_bias.data[:6] = -100.0
    figures = [trainer.step(inputs(step)) for step in range(46)]
    assert [row["stale"] >= 6 / LATENTS for row in figures] == [False] * 40 + [True] * 6
    assert [row["auxiliary"] > 0 for row in figures] == [False] * 40 + [True] * 6


# ------------------------------------------------------------------------------------------------ rough selection


def picked(trainer, x) -> tuple[torch.Tensor, torch.Tensor]:
    """([token, latent] which are in the code, exact responses); the code's values are the exact ones."""
    with torch.no_grad():
        code, exact = trainer._code(x[:, 0]), x[:, 0] @ trainer.encoder.T + trainer.encoder_bias
    assert (code.values > 0).all()
    torch.testing.assert_close(code.values, exact[code.rows, code.latents])
    return code.dense() > 0, exact


@pytest.mark.parametrize("k", [3, 12])
def test_a_rough_selection_takes_at_most_a_nearly_equal_latent_for_another(k):
    """bfloat16 has 8 binary digits: a response is wrong by at most about 1/128 of the sum of its terms."""
    trainer, x = make_trainer(torch.float32, recipe=ROUGH, k=k), inputs(dtype=torch.float32, tokens=2000)
    code, exact = picked(trainer, x)
    expected, _ = picked(make_trainer(torch.float32, k=k), x)
    assert 0 < (code != expected).any(1).float().mean() < 0.2  # on some tokens another one is taken
    error = (x[:, 0].abs() @ trainer.encoder.abs().T).amax(1) / 128
    weakest_taken = exact.masked_fill(~code, torch.inf).amin(1)
    strongest_left = exact.masked_fill(code, -torch.inf).amax(1)
    full = code.sum(1) == k  # elsewhere all positive ones are taken
    assert (weakest_taken[full] > strongest_left[full] - 2 * error[full]).all()


@pytest.mark.parametrize("k", [3, 12])
def test_gradients_after_a_rough_selection_are_exact_for_what_was_selected(k):
    trainer, oracle, x = make_trainer(recipe=ROUGH, k=k), make_trainer(recipe=ROUGH, k=k), inputs()
    code, _ = picked(oracle, x)
    given, wanted = x.unbind(1)
    f = (given @ oracle.encoder.T + oracle.encoder_bias) * code
    (f @ oracle.decoder + oracle.decoder_bias + given @ oracle.skip.T - wanted).square().mean().backward()
    found = gradients(trainer, x)
    for name in PARAMETERS:
        torch.testing.assert_close(found[name], getattr(oracle, name).grad, rtol=1e-6, atol=1e-10)


# ------------------------------------------------------------------------------------------------ the peer


def sparsify_of(trainer) -> SparseCoder:
    """sparsify's coder with the same weights."""
    config = SparseCoderConfig(expansion_factor=4, k=trainer.point.k, transcode=True, skip_connection=True)
    coder = SparseCoder(WIDTH, config, dtype=trainer.encoder.dtype)
    names = {"encoder": "encoder.weight", "encoder_bias": "encoder.bias", "decoder": "W_dec", "decoder_bias": "b_dec"}
    weights = {names.get(name, "W_skip"): getattr(trainer, name).detach().clone() for name in PARAMETERS}
    coder.load_state_dict(weights)
    return coder


def gradients_of_sparsify(trainer, x, dead=None) -> dict[str, torch.Tensor]:
    """Theirs, of the loss in our unit: they divide by the variance of the outputs, we by the number of entries."""
    coder = sparsify_of(trainer)
    result = coder(x[:, 0], x[:, 1], dead_mask=dead)
    variance = (x[:, 1] - x[:, 1].mean(0)).square().mean()
    ((result.fvu + trainer.recipe.auxiliary_weight * result.auxk_loss) * variance).backward()
    theirs = (coder.encoder.weight, coder.encoder.bias, coder.W_dec, coder.b_dec, coder.W_skip)
    return {name: parameter.grad for name, parameter in zip(PARAMETERS, theirs, strict=True)}


def test_without_stale_latents_the_gradients_are_those_of_sparsify():
    trainer, x = make_trainer(torch.float32, k=3), inputs(dtype=torch.float32)
    theirs, ours = gradients_of_sparsify(trainer, x), gradients(trainer, x)
    for name in PARAMETERS:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def silence(trainer):
    """Latent 5 answers far below zero to everything."""
    trainer.encoder_bias.data[5] = -50.0


def overshadow(trainer):
    """Latent 5 answers a little above zero to everything, the others far more: it is never among the top k."""
    trainer.encoder_bias.data += 50.0
    trainer.encoder.data[5] *= 0.01
    trainer.encoder_bias.data[5] = 0.5


@pytest.mark.parametrize("die", [silence, overshadow])
def test_the_encoder_of_a_dead_latent_learns_here_and_not_in_sparsify(die):
    """Why the training is written anew: theirs gives the encoder of a dead latent a gradient of exactly zero."""
    x = inputs(dtype=torch.float32)

    def dead_one(**settings):
        trainer = make_trainer(torch.float32, k=3, **settings)
        die(trainer)
        return trainer, gradients(trainer, x, (5,))

    _, without = dead_one()
    assert not without["encoder"][5].any() and without["encoder_bias"][5] == 0 and not without["decoder"][5].any()
    _, ours = dead_one(recipe=REVIVAL)
    assert (ours["encoder"][5] != 0).all() and ours["encoder_bias"][5] != 0 and (ours["decoder"][5] != 0).all()

    trainer = make_trainer(torch.float32, recipe=REVIVAL, k=3)
    die(trainer)
    theirs = gradients_of_sparsify(trainer, x, make_stale(trainer, (5,)))
    assert not theirs["encoder"][5].any() and theirs["encoder_bias"][5] == 0
    others = torch.arange(LATENTS) != 5
    assert theirs["encoder"][others].abs().max() > 1e-3  # the others do learn in this very batch


@pytest.mark.parametrize("others", [0.0, -50.0])
def test_sparsify_lets_zeros_of_the_top_k_fire_and_learn_and_this_training_does_not(others):
    """Only latent 7 answers above zero, the others exactly zero or below it, and k is 3: of each token's three entries
    two are zero after the ReLU."""
    trainer, x = make_trainer(torch.float32, k=3), inputs(dtype=torch.float32)
    trainer.encoder.data[:] = 0.0
    trainer.encoder_bias.data[:] = others
    trainer.encoder_bias.data[7] = 50.0
    coder = sparsify_of(trainer)
    assert len(coder.encode(x[:, 0]).top_indices.unique()) > 1  # those that it counts as having fired
    assert (gradients_of_sparsify(trainer, x)["encoder"].abs().amax(1) > 0).sum() > 1
    trainer.idle_tokens += 100
    l0 = trainer.step(x)["l0"]
    rest = torch.arange(LATENTS) != 7
    assert l0 == 1.0 and trainer.idle_tokens[7] == 0 and (trainer.idle_tokens[rest] == 100 + TOKENS).all()
    for name in ("encoder", "encoder_bias", "decoder"):
        gradient = getattr(trainer, name).grad
        assert gradient[7].any() and not gradient[rest].any()


# ------------------------------------------------------------------------------------------------ steps


def test_a_step_clips_the_gradient_of_all_weights_together():
    trainer = make_trainer(k=4, settings=schedule(gradient_clip=0.25))
    trainer.step(inputs() * 10)
    total = sum(float(parameter.grad.square().sum()) for parameter in trainer.parameters()) ** 0.5
    assert total == pytest.approx(0.25, rel=1e-4)


def test_the_learning_rate_rises_stays_and_falls():
    """3000 tokens in batches of 100: 30 steps, 3 up and 6 down."""
    trainer = make_trainer(torch.float32, learning_rate=0.6)
    rates = []
    for step in range(30):
        trainer.step(inputs(step, torch.float32), measured=False)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6]) and set(rates[2:25]) == {0.6}
    assert rates[-2:] == pytest.approx([0.2, 0.1])


def test_the_figures_of_a_batch_are_those_of_the_dense_formulas():
    trainer, x = make_trainer(k=3), inputs()
    given, wanted = x.unbind(1)
    responses = given @ trainer.encoder.detach().T + trainer.encoder_bias.detach()
    fired = (largest_alone(responses, 3) > 0).sum(1).double().mean()
    loss = dense_loss(trainer, x, trainer.stale()).item()
    variance = float((wanted - wanted.mean(0)).square().mean())
    metrics = trainer.step(x)
    assert metrics["fve"] == pytest.approx(1 - loss / variance) and metrics["l0"] == pytest.approx(float(fired))
    assert metrics["stale"] == metrics["auxiliary"] == 0.0


def test_measuring_a_step_does_not_change_it():
    one, two = (make_trainer(torch.float32) for _ in range(2))
    for step in range(3):
        assert one.step(inputs(step, torch.float32), measured=False) == {}
        assert two.step(inputs(step, torch.float32))["loss"] > 0
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_transcoders_of_several_sizes_share_the_memory_for_responses_without_a_trace():
    def weights(workspaces):
        statistics, recipe = statistics_of(inputs(9, torch.float32)), replace(REVIVAL, stale_after_tokens=50)
        trainers = [
            TranscoderTrainer(transcoder_point(expansion=expansion), schedule(), recipe, statistics, 0, None, space)
            for expansion, space in zip((2, 8, 4), workspaces, strict=True)
        ]
        for step in range(8):
            for trainer in trainers:
                trainer.step(inputs(step, torch.float32))
        return [parameter for trainer in trainers for parameter in trainer.parameters()]

    shared, apart = weights([Workspace()] * 3), weights([Workspace(), Workspace(), Workspace()])
    assert all(torch.equal(one, two) for one, two in zip(shared, apart, strict=True))


def test_a_saved_trainer_goes_on_bit_for_bit(tmp_path):
    def fresh(seed):
        statistics = statistics_of(inputs(9, torch.float32))
        recipe = replace(REVIVAL, stale_after_tokens=50)
        trainer = TranscoderTrainer(transcoder_point(k=2), schedule(), recipe, statistics, seed)
        trainer.encoder_bias.data[:6] -= 10.0
        return trainer

    whole = fresh(3)
    for step in range(6):
        whole.step(inputs(step, torch.float32))
    torch.save(whole.state(), tmp_path / "state")
    resumed = fresh(99)
    resumed.load_state(torch.load(tmp_path / "state", weights_only=True))
    for step in range(6, 12):
        one, two = whole.step(inputs(step, torch.float32)), resumed.step(inputs(step, torch.float32))
        assert one == two and one["auxiliary"] > 0
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert torch.equal(whole.idle_tokens, resumed.idle_tokens)


def test_a_loss_that_is_not_finite_stops_the_training():
    trainer, x = make_trainer(torch.float32), inputs(dtype=torch.float32)
    x[0, 1, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="learning_rate"):
        trainer.step(x)


# ------------------------------------------------------------------------------------------------ the start


def test_at_the_start_responses_have_mean_zero_and_the_output_is_the_mean_output():
    x = PlantedMlp.random().sample(4000)
    statistics = statistics_of(x)
    normalised = x * statistics.scale[:, None]
    trainer = TranscoderTrainer(transcoder_point(), schedule(), NO_REVIVAL, statistics, 0)
    responses = normalised[:, 0] @ trainer.encoder.T + trainer.encoder_bias
    assert responses.mean(0).abs().max() < 1e-5 < 0.3 < responses.std(0).min()
    torch.testing.assert_close(trainer.decoder_bias, normalised[:, 1].mean(0), rtol=1e-4, atol=1e-5)
    assert not trainer.decoder.any() and not trainer.skip.any()
    torch.testing.assert_close(trainer.finish({})(x[:, 0]), x[:, 1].mean(0).expand(len(x), -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (3.0, 7.0)])
def test_started_at_a_linear_map_a_trainer_is_that_map_in_raw_units(factors):
    x = PlantedMlp.random().sample(500) * torch.tensor(factors)[:, None]
    linear = AffineMap(
        *(torch.randn(shape, generator=torch.Generator().manual_seed(4)) for shape in ((WIDTH, WIDTH), WIDTH))
    )
    trainer = TranscoderTrainer(transcoder_point(), schedule(), NO_REVIVAL, statistics_of(x), 0)
    encoder = trainer.encoder.detach().clone()
    trainer.start_at(linear)
    torch.testing.assert_close(trainer.finish({})(x[:, 0]), linear(x[:, 0]), rtol=1e-4, atol=1e-4)
    assert torch.equal(trainer.encoder, encoder) and not trainer.decoder.any()
    trainer.step(x[:100] * trainer.scale[:, None])  # and it still learns
    assert (trainer.skip.grad != 0).all()


def test_initial_weights_depend_on_the_seed_alone():
    """Not on what else was drawn in this process before."""
    statistics = statistics_of(inputs(9, torch.float32))
    first = initial_weights(4, statistics, 7)
    torch.rand(100)
    initial_weights(2, statistics, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, initial_weights(4, statistics, 7), strict=True))
    assert not torch.isclose(first[0], initial_weights(4, statistics, 8)[0]).any()


# ------------------------------------------------------------------------------------------------ planted truth


USUAL = Recipe(auxiliary_weight=1 / 32, stale_after_tokens=5000, selection="float32")


def trained(x, steps=600, batch=256, recipe=USUAL, change=lambda trainer: None, **point):
    """A trainer after all its steps on random batches of raw inputs and outputs."""
    settings, statistics = schedule(tokens=steps * batch, batch_tokens=batch, buffer_tokens=batch), statistics_of(x)
    trainer = TranscoderTrainer(transcoder_point(**point), settings, recipe, statistics, 0)
    change(trainer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        trainer.step(x[rows] * statistics.scale[:, None], measured=False)
    return trainer


@pytest.fixture(scope="module")
def planted():
    return PlantedMlp.random(features=20)


@pytest.fixture(scope="module")
def learnt(planted):
    return trained(planted.sample(50_000), steps=1500)


def test_training_explains_a_planted_mlp_and_far_better_than_the_best_linear_map(planted, learnt):
    held_out = planted.sample(5000, seed=1)
    transcoder = learnt.finish({})
    left = unexplained(transcoder(held_out[:, 0]), held_out[:, 1])
    assert left < 0.03 and unexplained_by_a_linear_map(held_out) > 10 * left
    assert transcoder.encode(held_out[:, 0]).l0() <= 5


def test_training_finds_the_planted_features_themselves(planted, learnt):
    """For every one there is a latent whose values follow it, and which reads and writes its directions."""
    held_out = planted.sample(5000, seed=1)
    transcoder = learnt.finish({})
    f, truth = transcoder.encode(held_out[:, 0]).dense(), planted.features(held_out[:, 0])
    correlation = torch.corrcoef(torch.cat([truth, f], dim=1).T)[: truth.shape[1], truth.shape[1] :].nan_to_num()
    best = correlation.max(1)
    assert best.values.min() > 0.9
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(transcoder.encoder[best.indices], planted.reads).min() > 0.95
    assert cosine(transcoder.decoder[best.indices], planted.writes).min() > 0.95


def test_of_a_linear_mlp_the_skip_alone_is_learnt(planted):
    linear = replace(planted, threshold=100.0)
    trainer = trained(linear.sample(50_000), steps=800, k=1)
    held_out, transcoder = linear.sample(5000, seed=1), trainer.finish({})
    without_latents = replace(transcoder, decoder=torch.zeros_like(transcoder.decoder))
    for imitation in (transcoder, without_latents):
        assert unexplained(imitation(held_out[:, 0]), held_out[:, 1]) < 1e-4
    assert (transcoder.skip - linear.skip).norm() < 0.01 * linear.skip.norm()


def test_a_rough_selection_learns_the_same_transcoder_nearly(planted, learnt):
    held_out = planted.sample(5000, seed=1)
    rough = trained(planted.sample(50_000), steps=1500, recipe=replace(USUAL, selection="bfloat16")).finish({})
    left, exact = (unexplained(t(held_out[:, 0]), held_out[:, 1]) for t in (rough, learnt.finish({})))
    assert left < 1.3 * exact


# ------------------------------------------------------------------------------------------------ revival

DEAD = 40  # of 48, so that those alive cannot have a planted feature each


def kill(trainer):
    trainer.encoder_bias.data[:DEAD] = -4.0


def test_dead_latents_revive_by_the_auxiliary_loss_and_stay_dead_without_it(planted):
    """And what is revived is of use: far more is explained."""
    x = planted.sample(50_000)
    begun = TranscoderTrainer(transcoder_point(), schedule(), NO_REVIVAL, statistics_of(x), 0)
    kill(begun)

    def alive(trainer) -> int:
        return int((torch.bincount(trainer.finish({}).encode(x[:, 0]).latents, minlength=LATENTS)[:DEAD] > 0).sum())

    def left(trainer) -> float:
        return unexplained(trainer.finish({})(x[:, 0]), x[:, 1])

    with_it, without = (
        trained(x, recipe=replace(USUAL, auxiliary_weight=weight, stale_after_tokens=2000), change=kill)
        for weight in (1 / 32, 0.0)
    )
    assert alive(begun) == alive(without) == 0
    assert alive(with_it) > 0.75 * DEAD and left(with_it) < 0.2 * left(without)


# ------------------------------------------------------------------------------------------------ units


def scaled(x, read, write):
    return x * torch.tensor([read, write])[:, None]


def test_a_change_of_units_of_input_and_output_changes_no_normalised_weight(planted):
    """To the last bit by powers of two, by others up to rounding; the finished transcoder has the new units."""
    x = planted.sample(20_000)
    weights, finished = {}, {}
    for factors in ((1.0, 1.0), (4.0, 8.0), (3.0, 7.0)):
        trainer = trained(scaled(x, *factors), steps=60)
        weights[factors], finished[factors] = trainer.parameters(), trainer.finish({})
    for one, two, three in zip(*weights.values(), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)
    given = planted.sample(1000, seed=1)[:, 0]
    plain = finished[1.0, 1.0](given)
    assert torch.equal(finished[4.0, 8.0](4 * given), 8 * plain)
    torch.testing.assert_close(finished[3.0, 7.0](3 * given), 7 * plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (3.0, 7.0), (0.01, 50.0)])
def test_a_trainer_begun_as_a_finished_transcoder_is_the_same_function_whatever_its_scales(planted, learnt, factors):
    x, finished = planted.sample(1000, seed=1), learnt.finish({})
    statistics = statistics_of(scaled(x, *factors))  # of other text or another model: other constants
    begun = TranscoderTrainer(transcoder_point(), schedule(), NO_REVIVAL, statistics, 1, start=finished).finish({})
    torch.testing.assert_close(begun(x[:, 0]), finished(x[:, 0]), rtol=1e-4, atol=1e-4)
    assert torch.equal(begun.encode(x[:, 0]).latents.unique(), finished.encode(x[:, 0]).latents.unique())
    assert not torch.allclose(begun(x[:, 0]), torch.zeros(1), atol=0.1)


def test_a_trainer_begun_as_a_transcoder_without_a_skip_has_a_skip_of_zeros_that_learns(planted, learnt):
    x, finished = planted.sample(1000, seed=1), replace(learnt.finish({}), skip=None)
    trainer = TranscoderTrainer(transcoder_point(), schedule(), NO_REVIVAL, statistics_of(x), 1, start=finished)
    torch.testing.assert_close(trainer.finish({})(x[:, 0]), finished(x[:, 0]), rtol=1e-4, atol=1e-4)
    trainer.step(x[:100] * statistics_of(x).scale[:, None])
    assert trainer.skip.detach().abs().min() > 0


def test_training_from_a_transcoder_leaves_that_transcoder_as_it_was(planted, learnt):
    finished = learnt.finish({})
    before = {name: getattr(finished, name).clone() for name in PARAMETERS}
    x = planted.sample(500)
    recipe = replace(REVIVAL, stale_after_tokens=1)
    statistics = replace(statistics_of(x), scale=torch.ones(2))  # a scale of 1: where a copy could be forgotten
    trainer = TranscoderTrainer(transcoder_point(), schedule(), recipe, statistics, 1, start=finished)
    for _ in range(3):
        trainer.step(x)
    assert all(torch.equal(getattr(finished, name), before[name]) for name in PARAMETERS)
    again = trainer.finish({})
    kept = {name: getattr(again, name).clone() for name in PARAMETERS}
    trainer.step(x)
    assert all(torch.equal(getattr(again, name), kept[name]) for name in PARAMETERS)


# ------------------------------------------------------------------------------------------------ memory


def largest_allocation(work) -> int:
    """Bytes of the largest piece of memory that was taken while `work` ran, inside operators too."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    return max(event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]")


@pytest.mark.parametrize("k", [3, 12])  # sparse and dense formulas
def test_no_tensor_of_tokens_by_k_by_width_is_made(k):
    """k * d is larger than the number of latents, so that one would be larger than the responses."""
    tokens = 96
    trainer = make_trainer(torch.float32, expansion=3 if k == 3 else 4, k=k + 2, recipe=REVIVAL)
    latents = len(trainer.encoder)
    assert trainer.point.k * WIDTH > latents
    x = inputs(dtype=torch.float32, tokens=tokens)
    for _ in range(2):
        trainer.step(x)
    make_stale(trainer, range(0, latents, 2))
    found = largest_allocation(lambda: trainer.step(x))
    assert 0 < found <= 4 * max(tokens * latents, latents * WIDTH) < 4 * tokens * trainer.point.k * WIDTH


def test_sparsify_makes_such_a_tensor():
    """And so `largest_allocation` would see one."""
    trainer, x = make_trainer(torch.float32, k=12), inputs(dtype=torch.float32, tokens=96)
    assert largest_allocation(lambda: gradients_of_sparsify(trainer, x)) >= 4 * 96 * 12 * WIDTH
