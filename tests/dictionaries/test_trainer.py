"""Training with hand-written sparse gradients equals training with autograd on the dense formulas."""

from __future__ import annotations

import pytest
import torch
from planted import bank, batch_topk, l1

from reasondiff.dictionaries.schedule import point_seed
from reasondiff.dictionaries.trainer import Trainer, initial_decoder

MODELS, WIDTH, LATENTS, TOKENS = 2, 6, 40, 23
SETTINGS = bank(latents=LATENTS, decoder_norm=0.5)


def inputs(seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(TOKENS, MODELS, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_trainer(point, settings=SETTINGS, dtype=torch.float64, seed=0, steps=100) -> Trainer:
    """A trainer with distinct encoder, decoder and biases, so that no mixed-up gradient goes unnoticed."""
    trainer = Trainer(point, settings, MODELS, WIDTH, steps, seed, "cpu")
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in trainer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
            parameter.data = (parameter.double() + noise).to(dtype)
    trainer.optimizer = torch.optim.Adam(trainer.parameters(), lr=point.learning_rate, betas=(0.9, 0.999), fused=True)
    return trainer


def dense_loss(trainer: Trainer, x: torch.Tensor, stale: torch.Tensor) -> torch.Tensor:
    """The oracle: docs/methods.md §3 as it is written, with dense [token, latent] and [model, latent, unit] tensors."""
    point, tokens = trainer.point, len(x)
    decoder = trainer.decoder.view(-1, MODELS, WIDTH)
    bias = trainer.decoder_bias.view(MODELS, WIDTH)
    responses = torch.relu(x.flatten(1) @ trainer.encoder.T + trainer.encoder_bias)
    norms = decoder.norm(dim=2).sum(1)
    f = responses
    if point.method == "batch_topk":
        scores = (responses * norms).detach()
        bound = scores.flatten().sort(descending=True).values[point.k * tokens - 1]
        f = responses * (scores >= bound)
    error = x - torch.einsum("nj,jmd->nmd", f, decoder) - bias
    if point.method == "l1":
        squares = error.square().sum(2)  # (token, model)
        fit = squares.sum(1).mean() if point.reconstruction == "sum_of_squares" else squares.sqrt().mean()
        ramp = point.sparsity_warmup_share * trainer.total_steps
        weight = point.sparsity * min(1, (trainer.steps + 1) / max(1, ramp))
        return fit + weight * (f * norms).sum(1).mean()
    loss = error.square().sum((1, 2)).mean()
    if stale.any():
        count = min(WIDTH // 2, int(stale.sum()))
        silent = responses[:, stale]
        best = torch.zeros_like(silent).scatter(1, silent.topk(count).indices, 1.0) * silent
        rest = torch.einsum("nj,jmd->nmd", best, decoder[stale])
        loss = loss + point.auxiliary_weight * (error.detach() - rest).square().sum((1, 2)).mean()
    return loss


def gradients(trainer: Trainer, x: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
    """(loss, gradients) of one step by hand, before the clip (which is set too high to matter)."""
    metrics = trainer.step(x)
    return metrics["loss"], [parameter.grad.clone() for parameter in trainer.parameters()]


def compare(point, stale_latents=(), density_check=None):
    settings = SETTINGS.model_copy(update={"gradient_clip": 1e9})
    trainer, oracle = make_trainer(point, settings), make_trainer(point, settings)
    stale = torch.zeros(LATENTS, dtype=torch.bool)
    for latent in stale_latents:
        stale[latent] = True
        trainer.idle_tokens[latent] = 10**9
    x = inputs()
    expected = dense_loss(oracle, x, stale)
    expected.backward()
    loss, found = gradients(trainer, x)
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    for by_hand, parameter in zip(found, oracle.parameters(), strict=True):
        assert torch.allclose(by_hand, parameter.grad, rtol=1e-5, atol=1e-8)
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("k", [2, 10])  # sparse (5 %) and dense (25 %) formulas
def test_batch_topk_gradients_equal_autograd(k):
    compare(batch_topk(k=k))


@pytest.mark.parametrize("stale", [(3,), (0, 5, 9, 17, 30, 31, 39), tuple(range(0, 40, 2))])
def test_auxiliary_loss_gradients_equal_autograd(stale):
    compare(batch_topk(k=2, auxiliary_weight=0.5, stale_after_tokens=1000), stale)


@pytest.mark.parametrize("reconstruction", ["sum_of_squares", "norm"])
def test_l1_gradients_equal_autograd_with_the_decoder_norms_in_the_penalty(reconstruction):
    compare(l1(reconstruction=reconstruction, sparsity=0.7))


def test_sparse_l1_gradients_equal_autograd():
    """Most activations are pushed below zero, so that the sparse formulas are used."""
    point = l1(sparsity=0.7, sparsity_warmup_share=0)
    settings = SETTINGS.model_copy(update={"gradient_clip": 1e9})
    trainer, oracle = make_trainer(point, settings), make_trainer(point, settings)
    for each in (trainer, oracle):
        each.encoder_bias.data -= 5.0
    x = inputs()
    dense_loss(oracle, x, torch.zeros(LATENTS, dtype=torch.bool)).backward()
    metrics = trainer.step(x)
    assert 0 < metrics["l0"] / LATENTS < 0.08
    for by_hand, parameter in zip(trainer.parameters(), oracle.parameters(), strict=True):
        assert torch.allclose(by_hand.grad, parameter.grad, rtol=1e-5, atol=1e-8)


def test_a_step_clips_the_gradient_of_all_weights_together():
    trainer = make_trainer(batch_topk(k=4))
    trainer.step(inputs() * 10)
    total = sum(float(parameter.grad.square().sum()) for parameter in trainer.parameters()) ** 0.5
    assert total == pytest.approx(1.0, rel=1e-4)


def test_the_learning_rate_rises_stays_and_falls():
    """100 steps, 10 % up and 20 % down: 1/10 at first, full from step 10 to 80, 1/20 at the last."""
    settings = SETTINGS.model_copy(update={"warmup_share": 0.1, "decay_share": 0.2})
    trainer = make_trainer(batch_topk(k=4, learning_rate=1.0), settings)
    seen = []
    for trainer.steps in range(100):
        trainer._set_learning_rate()
        seen.append(trainer.optimizer.param_groups[0]["lr"])
    assert seen[0] == pytest.approx(0.1) and seen[8] == pytest.approx(0.9)
    assert seen[9] == seen[50] == seen[80] == 1.0
    assert seen[90] == pytest.approx(0.5) and seen[99] == pytest.approx(0.05)


def test_stale_latents_that_respond_are_pulled_back_by_the_auxiliary_loss():
    def encoder_gradient(weight):
        trainer = make_trainer(batch_topk(k=1, auxiliary_weight=weight, stale_after_tokens=1000))
        trainer.decoder.data[5] *= 1e-4  # scores too small to be chosen, whatever the response
        trainer.idle_tokens[5] = 1000
        responds = bool((inputs().flatten(1) @ trainer.encoder[5] + trainer.encoder_bias[5] > 0).any())
        trainer.step(inputs())
        return responds, float(trainer.encoder.grad[5].abs().max()), int(trainer.idle_tokens[5])

    assert encoder_gradient(0.0) == (True, 0.0, 1000 + TOKENS)
    responds, gradient, _ = encoder_gradient(1 / 32)
    assert responds and gradient > 0


def test_a_latent_that_fires_is_no_longer_idle():
    trainer = make_trainer(batch_topk(k=2))
    trainer.idle_tokens += 7
    trainer.step(inputs())
    assert set(trainer.idle_tokens.tolist()) == {0, 7 + TOKENS}


@pytest.mark.parametrize("point", [batch_topk(k=2, stale_after_tokens=50), l1()], ids=["batch_topk", "l1"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(point):
    def weights():
        trainer = Trainer(point, SETTINGS, MODELS, WIDTH, 100, 3, "cpu")
        for step in range(12):
            trainer.step(inputs(step, torch.float32))
        return trainer.parameters()

    assert all(torch.equal(one, two) for one, two in zip(weights(), weights(), strict=True))


def test_a_saved_trainer_goes_on_bit_for_bit(tmp_path):
    point = batch_topk(k=2, stale_after_tokens=50)
    whole = Trainer(point, SETTINGS, MODELS, WIDTH, 100, 3, "cpu")
    for step in range(6):
        whole.step(inputs(step, torch.float32))
    torch.save(whole.state(), tmp_path / "state")
    resumed = Trainer(point, SETTINGS, MODELS, WIDTH, 100, 99, "cpu")
    resumed.load_state(torch.load(tmp_path / "state", weights_only=True))
    for step in range(6, 12):
        assert whole.step(inputs(step, torch.float32)) == resumed.step(inputs(step, torch.float32))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert torch.equal(whole.idle_tokens, resumed.idle_tokens) and whole.threshold == resumed.threshold


def test_measuring_a_step_does_not_change_it():
    one, two = (make_trainer(batch_topk(k=2), dtype=torch.float32) for _ in range(2))
    for step in range(3):
        assert one.step(inputs(step, torch.float32), measured=False) == {}
        assert two.step(inputs(step, torch.float32))["l0"] == 2.0
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_both_models_start_alike_unless_independent_halves_are_asked_for():
    def first(halves):
        settings = SETTINGS.model_copy(update={"independent_halves": halves})
        return initial_decoder(settings, MODELS, WIDTH, torch.Generator().manual_seed(0)).view(-1, MODELS, WIDTH)

    same, halves = first(False), first(True)
    assert torch.equal(same[:, 0], same[:, 1])
    assert not torch.allclose(halves[:, 0], halves[:, 1])
    for rows in (same, halves):
        assert torch.allclose(rows.norm(dim=2), torch.tensor(0.5))
    trainer = Trainer(batch_topk(), SETTINGS, MODELS, WIDTH, 100, 0, "cpu")
    assert torch.equal(trainer.encoder, trainer.decoder)


def test_every_point_has_a_seed_of_its_own():
    seeds = {
        point_seed(seed, pair, layer, point)
        for seed in (0, 1)
        for pair in ("a-b", "b-c")
        for layer in (1, 11)
        for point in ("l1", "btk8")
    }
    assert len(seeds) == 16 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_loss_that_is_not_finite_stops_the_training():
    trainer = make_trainer(batch_topk(k=2), dtype=torch.float32)
    x = inputs(dtype=torch.float32)
    x[0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="learning_rate"):
        trainer.step(x)
