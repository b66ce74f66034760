"""Figures about transcoders are those of a slow plain computation, and what is wrong with a transcoder shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reasondiff.config import PARTS, TranscoderEvaluation, TranscoderPoint
from reasondiff.dictionaries.admission import refuse_unfaithful, unexplained
from reasondiff.dictionaries.faithfulness import COLUMNS, FLOORS, evaluate_transcoders
from reasondiff.dictionaries.pilot import SWEEP_COLUMNS, evaluate_sweep
from reasondiff.dictionaries.replacements import first_documents, fit_maps
from reasondiff.dictionaries.splicing import TARGET_PHASES, TARGETS, headline_phase
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.load import describe_model, load_model
from reasondiff.models.mlp import find_mlp
from reasondiff.models.stream import ActivationStream, calibrate, unmasked
from reasondiff.store import ArtefactError
from reasondiff.text.rendering import PHASE_CODE, PHASES
from reasondiff.text.tokens import tokenize_documents

WIDTH, LAYERS = 16, (0, 1, 2)
SETTINGS = TranscoderEvaluation(
    tokens=10_000, spliced_tokens=10_000, linear_tokens=10_000, problems=1, shown=0, bootstrap=100, seed=0
)
PHASES_OF = {"all": PHASES, "think": ("think",), "answer": ("answer",), "response": ("think", "answer")}


@pytest.fixture(scope="module")
def table(make_documents, small_tokenizer, text_settings):
    """Seven problems in each of calibrate, choose and report, two in the held-out family, and a plain text."""
    parts = ("calibrate", "choose", "report")
    rows = [{"text": "Numbers have names, and names have letters: one has three.", "part": "report"}]
    for index in range(23):
        steps = "; ".join(f"{index} and {step} make {index + step}" for step in range(1 + index % 5))
        part = parts[index % 3] if index < 21 else "family"
        rows.append(
            {"prompt": f"Add {index} to 3. Think.", "think": steps, "answer": f"It is {index + 3}.", "part": part}
        )
    return tokenize_documents(make_documents(rows), small_tokenizer, text_settings())


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def info(request, small_models, tmp_path_factory):
    """A random model whose norms weigh units differently, as those of trained models do."""
    model = load_model(small_models[request.param], "cpu", "float32")
    generator = torch.Generator().manual_seed(0)
    for block in model.model.layers:
        block.post_attention_layernorm.weight.copy_(torch.randn(WIDTH, generator=generator).exp())
    folder = tmp_path_factory.mktemp("faithfulness") / request.param
    model.save_pretrained(folder)
    return describe_model(request.param, folder)


@pytest.fixture(scope="module")
def stream(info, table, stream_settings):
    # a low limit, so that there are sinks by norm, and a foreign id
    settings = stream_settings(norm_factor=1.6)
    foreign = [int(table.ids[table.starts[5] + 7])]
    return ActivationStream([info], list(LAYERS), table, foreign, settings, 200, "cpu", "float32", place="mlp")


@pytest.fixture(scope="module")
def statistics(stream):
    return calibrate(stream, stream.table.documents_of("calibrate"), 500)


@pytest.fixture(scope="module")
def maps(stream, statistics):
    return fit_maps(stream, statistics, first_documents(stream.table, "calibrate", 10_000, 200))


def make_transcoder(latents=24, k=3, skip=None, bias=None, seed=0, scale=0.05) -> Transcoder:
    """Random latents around a skip and a bias."""
    generator = torch.Generator().manual_seed(seed)
    return Transcoder(
        encoder=torch.randn(latents, WIDTH, generator=generator),
        encoder_bias=torch.zeros(latents),
        decoder=scale * torch.randn(latents, WIDTH, generator=generator) / WIDTH**0.5,
        decoder_bias=torch.zeros(WIDTH) if bias is None else bias,
        skip=skip,
        k=k,
        card={},
    )


def silent(skip=None, bias=None) -> Transcoder:
    """A transcoder whose latents never fire."""
    return replace(make_transcoder(skip=skip, bias=bias), encoder_bias=torch.full((24,), -1e6))


def rough(maps, seed=0, k=3):
    """Transcoders that are somewhat better or worse than the linear maps."""
    return {
        layer: make_transcoder(k=k, skip=found.weight.T.contiguous(), bias=found.bias, seed=seed + layer)
        for layer, found in maps.items()
    }


class Perfect(Transcoder):
    """Stands for a transcoder that has learnt its MLP by heart."""

    def decode(self, code, x):
        return self.card["mlp"](x)

    def __call__(self, x):
        return self.card["mlp"](x)


def perfect(model, layer) -> Perfect:
    plain = make_transcoder()
    tensors = (plain.encoder, plain.encoder_bias, plain.decoder, plain.decoder_bias)
    return Perfect(*tensors, skip=None, k=3, card={"mlp": find_mlp(model, layer).forward})


@pytest.fixture(scope="module")
def model(info):
    return load_model(info, "cpu", "float32")


@pytest.fixture(scope="module")
def transcoders(maps):
    return rough(maps)


@pytest.fixture(scope="module")
def evaluation(stream, statistics, transcoders):
    return evaluate_transcoders(stream, statistics, transcoders, SETTINGS)


def rows(found, **where):
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found), where
    return found


def one(found, column="value", **where) -> float:
    found = rows(found, **{"mask": "unmasked", "part": "report", "phase": "all", "at": "transcoder", **where})
    assert len(found) == 1
    return float(found[column].iloc[0])


# ------------------------------------------------------------------------------------------- by oracle


@torch.no_grad()
def plain_losses(model, stream, statistics, functions, mask, part="report"):
    """The slow way: each document alone through the whole model, before and after its MLPs are replaced by hand.
    (KL, CE before, CE after, same top token, phase of the predicted token, problem) of every target."""
    table, results = stream.table, []
    for document in table.documents_of(part):
        place = slice(table.starts[document], table.starts[document + 1])
        ids = torch.from_numpy(table.ids[place].astype(np.int64))
        taken, hooks = {}, []
        for layer in functions:
            keep = lambda _m, given, output, layer=layer, taken=taken: taken.update(  # noqa: E731
                {layer: (given[0][0], output[0])}
            )
            hooks.append(find_mlp(model, layer).register_forward_hook(keep))
        before = model(ids[None]).logits[0].log_softmax(-1)
        [hook.remove() for hook in hooks]
        hooks = []
        for layer, function in functions.items():
            norms = torch.stack([side.norm(dim=1) for side in taken[layer]], dim=1)
            is_sink = (norms > stream.settings.norm_factor * statistics[layer].median_norm).any(1)
            kept = (torch.arange(len(ids)) >= 2) & ~torch.isin(ids, torch.from_numpy(stream.foreign)) & ~is_sink
            chosen = torch.ones_like(kept) if mask == "all" else kept
            mix = lambda _m, given, output, chosen=chosen, function=function: torch.where(  # noqa: E731
                chosen[:, None], function(given[0][0]), output[0]
            )[None]
            hooks.append(find_mlp(model, layer).register_forward_hook(mix))
        after = model(ids[None]).logits[0].log_softmax(-1)
        [hook.remove() for hook in hooks]
        phases = table.phases[place][1:]
        p, q = before[:-1], after[:-1]
        results += zip(
            F.kl_div(q, p, reduction="none", log_target=True).sum(1).tolist(),
            F.nll_loss(p, ids[1:], reduction="none").tolist(),
            F.nll_loss(q, ids[1:], reduction="none").tolist(),
            (p.argmax(1) == q.argmax(1)).float().tolist(),
            phases.tolist(),
            [int(table.problem[document])] * len(phases),
            strict=True,
        )
    return np.array(results)


CASES = [("0", "unmasked"), ("1", "unmasked"), ("2", "unmasked"), ("1", "all"), ("all", "unmasked"), ("all", "all")]


@pytest.mark.parametrize(("layer", "mask"), CASES)
def test_losses_equal_those_of_a_slow_plain_loop(model, stream, statistics, transcoders, evaluation, layer, mask):
    functions = transcoders if layer == "all" else {int(layer): transcoders[int(layer)]}
    losses = plain_losses(model, stream, statistics, functions, mask)
    for phase, members in PHASES_OF.items():
        inside = losses[np.isin(losses[:, 4], [PHASE_CODE[name] for name in members])]
        kl, before, after, same = inside[:, :4].mean(0)
        where = {"layer": layer, "mask": mask, "phase": phase}
        assert one(evaluation, quantity="kl_nats", **where) == pytest.approx(kl, abs=1e-5)
        assert one(evaluation, quantity="ce_original_nats", **where) == pytest.approx(before, abs=1e-5)
        assert one(evaluation, quantity="ce_increase_nats", **where) == pytest.approx(after - before, abs=1e-5)
        assert one(evaluation, quantity="top1_agreement", **where) == pytest.approx(same, abs=1e-9)
        found = rows(evaluation, quantity="kl_nats", at="transcoder", **where)
        assert int(found["n_tokens"].iloc[0]) == len(inside) and found["n_unit"].iloc[0] == "problems"
        assert int(found["n"].iloc[0]) == len(np.unique(inside[:, 5]))


@pytest.mark.parametrize(("layer", "mask"), [("0", "unmasked"), ("2", "unmasked"), ("all", "unmasked"), ("all", "all")])
@pytest.mark.parametrize("floor", ["mean_ablation", "zero_ablation", "linear"])
def test_floors_and_shares_equal_those_of_a_slow_plain_loop(
    model, stream, statistics, transcoders, maps, evaluation, layer, mask, floor
):
    layers = LAYERS if layer == "all" else [int(layer)]
    functions = {
        "mean_ablation": {each: lambda x, each=each: statistics[each].mean[1].expand_as(x) for each in layers},
        "zero_ablation": dict.fromkeys(layers, torch.zeros_like),
        "linear": {each: lambda x, each=each: x @ maps[each].weight + maps[each].bias for each in layers},
    }[floor]
    poorer = plain_losses(model, stream, statistics, functions, mask)
    own = plain_losses(model, stream, statistics, {each: transcoders[each] for each in layers}, mask)
    where = {"layer": layer, "mask": mask}
    costs = poorer[:, 2] - poorer[:, 1], own[:, 2] - own[:, 1]
    assert one(evaluation, quantity="ce_increase_nats", at=floor, **where) == pytest.approx(costs[0].mean(), abs=1e-5)
    assert one(evaluation, quantity="kl_nats", at=floor, **where) == pytest.approx(poorer[:, 0].mean(), abs=1e-5)
    recovered = 1 - costs[1].sum() / costs[0].sum()
    assert one(evaluation, quantity=f"ce_recovered_{FLOORS[floor]}", **where) == pytest.approx(recovered, rel=1e-2)
    if floor == "linear":
        excess = own[:, 3].mean() - poorer[:, 3].mean()
        assert one(evaluation, quantity="top1_excess", **where) == pytest.approx(excess, abs=1e-9)


def test_the_mask_is_not_trivial_here(stream, statistics):
    """There are first positions, a foreign id and sinks that differ between layers; else the cases above are one."""
    blocks = list(stream(stream.table.documents_of("report")))
    found = {
        layer: [unmasked(block, layer, statistics[layer], stream.settings) for block in blocks] for layer in LAYERS
    }
    sinks = {layer: torch.cat([sink for _, sink in pairs]) for layer, pairs in found.items()}
    kept = torch.cat([block.kept for block in blocks])
    assert int((~kept).sum()) > 2 * len(stream.table.documents_of("report"))
    assert any(0 < int((sinks[layer] & kept).sum()) < 0.5 * int(kept.sum()) for layer in LAYERS)
    assert not torch.equal(sinks[0], sinks[2])


# ------------------------------------------------------------------------------------------- by identity


def test_the_models_own_mlps_in_their_place_change_nothing(evaluation):
    """Exactly 0 and 1: what is compared is the model with a replaced model, and this replacement is none."""
    found = evaluation[evaluation["at"] == "identity"]
    assert set(found["layer"]) == {"all"} and set(found["mask"]) == {"unmasked", "all"}
    assert set(found["phase"]) == set(PHASES_OF)
    assert (rows(found, quantity="kl_nats")["value"] == 0).all()
    assert (rows(found, quantity="ce_increase_nats")["value"] == 0).all()
    assert (rows(found, quantity="top1_agreement")["value"] == 1).all()


@pytest.mark.parametrize("layer", ["0", "1", "2", "all"])
def test_replacing_an_mlp_by_zeros_changes_the_loss(evaluation, layer):
    """The study that this replaces compared a model with itself, and so never saw a loss."""
    where = {"layer": layer, "at": "zero_ablation"}
    assert one(evaluation, quantity="kl_nats", **where) > 0.01
    assert abs(one(evaluation, quantity="ce_increase_nats", **where)) > 1e-3
    assert one(evaluation, quantity="top1_agreement", **where) < 1


def test_a_transcoder_that_has_learnt_its_mlp_by_heart_recovers_everything(stream, statistics, model):
    found = evaluate_transcoders(stream, statistics, {layer: perfect(model, layer) for layer in LAYERS}, SETTINGS)
    own = found[found["at"] == "transcoder"]
    assert rows(own, quantity="fvu")["value"].abs().max() < 1e-9
    assert rows(own, quantity="kl_nats")["value"].abs().max() < 1e-6
    assert (rows(own, quantity="top1_agreement")["value"] == 1).all()
    for layer in ("0", "1", "2", "all"):
        for share in ("mean", "zero", "linear"):
            assert one(own, quantity=f"ce_recovered_{share}", layer=layer) == pytest.approx(1, abs=1e-3)
        assert one(own, quantity="top1_excess", layer=layer) > 0


def test_a_transcoder_without_a_voice_of_its_own_is_mean_ablation(stream, statistics):
    found = evaluate_transcoders(
        stream, statistics, {layer: silent(bias=statistics[layer].mean[1]) for layer in LAYERS}, SETTINGS
    )
    for layer in ("0", "1", "2", "all"):
        for quantity in ("kl_nats", "ce_increase_nats", "top1_agreement"):
            own, floor = (one(found, quantity=quantity, layer=layer, at=at) for at in ("transcoder", "mean_ablation"))
            assert own == pytest.approx(floor, abs=1e-6)
        assert one(found, quantity="ce_recovered_mean", layer=layer) == pytest.approx(0, abs=1e-4)
    assert one(found, quantity="dead_share", layer="1") == 1 and one(found, quantity="l0", layer="1") == 0
    assert one(found, quantity="fvu", layer="1") == pytest.approx(1, abs=0.1)  # the mean of another part


def test_a_skip_alone_is_the_linear_map(stream, statistics, maps):
    transcoders = {layer: silent(maps[layer].weight.T.contiguous(), maps[layer].bias) for layer in LAYERS}
    found = evaluate_transcoders(stream, statistics, transcoders, SETTINGS)
    for layer in ("0", "1", "2", "all"):
        assert one(found, quantity="ce_recovered_linear", layer=layer) == pytest.approx(0, abs=1e-3)
        assert one(found, quantity="top1_excess", layer=layer) == pytest.approx(0, abs=1e-9)
    for layer in ("0", "1", "2"):
        own, linear = (one(found, quantity="fvu", layer=layer, at=at) for at in ("transcoder", "linear"))
        assert own == pytest.approx(linear, abs=1e-6) and 0 < linear < 1


def test_one_layer_replaced_alone_is_the_same_alone_and_at_once(stream, statistics, transcoders):
    found = evaluate_transcoders(stream, statistics, {1: transcoders[1]}, SETTINGS)
    for mask in ("unmasked", "all"):
        for quantity in ("kl_nats", "ce_increase_nats", "ce_original_nats"):
            where = {"quantity": quantity, "mask": mask}
            assert one(found, layer="1", **where) == one(found, layer="all", **where)


def test_the_table_has_what_is_promised_and_intervals_hold_their_value(evaluation):
    assert list(evaluation.columns) == COLUMNS
    assert set(evaluation["layer"]) == {"0", "1", "2", "all"} and set(evaluation["part"]) == {"report", "family"}
    alone = evaluation[
        (evaluation["layer"] != "all") & (evaluation["mask"] == "all") & (evaluation["quantity"] != "fvu")
    ]
    assert set(alone["at"]) == {"transcoder"}
    assert not evaluation.duplicated(["quantity", "layer", "part", "phase", "mask", "at"]).any()
    is_share = evaluation["quantity"].str.startswith("ce_recovered")  # of nearly nothing, in a random model
    held = evaluation[~is_share].dropna(subset=["low", "high"])
    assert (held["low"] <= held["value"] + 1e-12).all() and (held["value"] <= held["high"] + 1e-12).all()
    fvu = rows(held, quantity="fvu", part="report", at="transcoder")
    assert (fvu["low"] < fvu["high"]).all()
    assert rows(evaluation, part="family")["low"].isna().all()  # two problems have no interval


# ------------------------------------------------------------------------------------------- by hand


def gathered(stream, statistics, layer, part):
    """MLP inputs, outputs, masks and phases of all tokens of a part."""
    blocks = list(stream(stream.table.documents_of(part)))
    x = torch.cat([block.activations[layer] for block in blocks])
    kept = torch.cat([unmasked(block, layer, statistics[layer], stream.settings)[0] for block in blocks])
    phases = torch.from_numpy(stream.table.phases)[torch.cat([block.token for block in blocks])]
    return x[:, 0], x[:, 1], kept, phases


@pytest.mark.parametrize("part", ["report", "family"])
@pytest.mark.parametrize("layer", LAYERS)
def test_unexplained_variance_is_error_over_spread(stream, statistics, transcoders, evaluation, part, layer):
    given, output, kept, phases = gathered(stream, statistics, layer, part)
    imitated = transcoders[layer](given)
    for mask in ("unmasked", "all"):
        for phase in ("all", "think", "prompt"):
            inside = (kept if mask == "unmasked" else torch.ones_like(kept)) & (
                torch.ones_like(kept) if phase == "all" else phases == PHASE_CODE[phase]
            )
            y = output[inside].double()
            expected = (y - imitated[inside]).square().sum() / (y - y.mean(0)).square().sum()
            where = {"quantity": "fvu", "layer": str(layer), "part": part, "mask": mask, "phase": phase}
            assert one(evaluation, **where) == pytest.approx(float(expected), rel=1e-5)
            assert one(evaluation, "n_tokens", **where) == int(inside.sum())


def test_the_linear_map_is_the_least_squares_solution_on_unmasked_calibration_tokens(stream, statistics, maps):
    for layer in LAYERS:
        given, output, kept, _ = gathered(stream, statistics, layer, "calibrate")
        design = np.concatenate([given[kept].double().numpy(), np.ones((int(kept.sum()), 1))], axis=1)
        solution = np.linalg.lstsq(design, output[kept].double().numpy(), rcond=None)[0]
        predicted = design @ np.concatenate([maps[layer].weight, maps[layer].bias[None]])
        np.testing.assert_allclose(predicted, design @ solution, atol=1e-4)
        np.testing.assert_allclose(maps[layer](given[kept]), predicted, atol=1e-5)


def test_sparsity_is_counted_over_unmasked_tokens(stream, statistics, transcoders, evaluation):
    given, _, kept, phases = gathered(stream, statistics, 1, "report")
    fires = transcoders[1].encode(given).dense() > 0
    rate = fires[kept].double().mean(0)
    assert one(evaluation, quantity="l0", layer="1") == pytest.approx(float(rate.sum()))
    thinking = kept & (phases == PHASE_CODE["think"])
    l0 = float(fires[thinking].double().sum(1).mean())
    assert one(evaluation, quantity="l0", layer="1", phase="think") == pytest.approx(l0)
    assert one(evaluation, quantity="dense_share", layer="1") == float((rate > 0.1).double().mean()) > 0
    assert one(evaluation, quantity="dead_share", layer="1") == float((rate == 0).double().mean())
    assert one(evaluation, quantity="dead_rate_bound", layer="1") == pytest.approx(3 / int(kept.sum()))
    shares = evaluation[evaluation["quantity"].isin(["dead_share", "rare_share", "dense_share", "dead_rate_bound"])]
    assert set(shares["n"]) == {24} and set(shares["n_unit"]) == {"latents"} and set(shares["phase"]) == {"all"}


# ------------------------------------------------------------------------------------------- which text


def test_so_many_documents_are_read_as_hold_at_most_the_tokens_asked_for(table):
    documents, lengths = table.documents_of("report"), table.lengths()[table.documents_of("report")]
    three = first_documents(table, "report", int(lengths[:3].sum()), 200)
    assert three.documents.tolist() == documents[:3].tolist() and three.problems == 3
    assert three.number[documents[:3]].tolist() == np.argsort(np.argsort(table.problem[documents[:3]])).tolist()
    assert (np.delete(three.number, documents[:3]) == -1).all()
    assert len(first_documents(table, "report", int(lengths[:3].sum()) - 1, 200).documents) == 2
    assert len(first_documents(table, "report", 1, 200).documents) == 1
    # rows of 10 tokens cut every document
    assert len(first_documents(table, "report", 30, 10).documents) == 3


def test_losses_do_not_depend_on_how_many_rows_are_read_at_once(
    info, table, stream, statistics, transcoders, evaluation
):
    settings = stream.settings.model_copy(update={"batch_rows": 1})
    single = ActivationStream(
        [info], list(LAYERS), table, stream.foreign.tolist(), settings, 200, "cpu", "float32", place="mlp"
    )
    found = evaluate_transcoders(single, statistics, transcoders, SETTINGS)
    assert len(found) == len(evaluation)
    np.testing.assert_allclose(found["value"], evaluation["value"], atol=1e-4, rtol=1e-2)


def test_a_missing_part_is_an_error_that_names_it(stream, statistics, transcoders):
    calibrate_only = replace(stream.table, part=np.full_like(stream.table.part, PARTS.index("calibrate")))
    with pytest.raises(ArtefactError, match="no document in its `report` part"):
        evaluate_transcoders(_with_table(stream, calibrate_only), statistics, transcoders, SETTINGS)


def test_too_few_tokens_for_a_linear_map_are_refused(stream, statistics, transcoders):
    few = SETTINGS.model_copy(update={"linear_tokens": 5})
    single = replace(stream.table, starts=np.concatenate([[0], stream.table.starts[1:]]))
    lengths = single.lengths()[single.documents_of("calibrate")]
    assert lengths[0] > WIDTH  # the first document alone would do, but for a shorter context
    short = _with_table(stream, single)
    short.context = WIDTH
    with pytest.raises(ArtefactError, match=r"layer 0: the best linear map would be fitted on \d+ unmasked tokens"):
        evaluate_transcoders(short, statistics, transcoders, few)


def _with_table(stream, table):
    """The same stream over other documents."""
    other = stream.only(LAYERS)
    other.table = table
    return other


# ------------------------------------------------------------------------------------------- the sweep

POINTS = {
    "linear": TranscoderPoint(expansion=1, k=2, learning_rate=1.0),  # a name that a floor has too
    "x2k4": TranscoderPoint(expansion=2, k=4, learning_rate=1.0),
}


@pytest.fixture(scope="module")
def pilots(maps):
    return {"linear": rough(maps, 10, 2), "x2k4": rough(maps, 20, 4)}


@pytest.fixture(scope="module")
def sweep(stream, statistics, pilots):
    return evaluate_sweep(stream, statistics, pilots, POINTS, SETTINGS, 10_000, 0.0)


def of_point(sweep, point, layer):
    return rows(sweep, point=point, layer=layer).iloc[0]


def test_a_row_of_the_sweep_is_what_the_evaluation_says_of_that_layer(stream, statistics, pilots, sweep):
    """With `choose` and `report` exchanged, evaluation.tsv says the same, figure by figure; losses are those of the
    response."""
    response = {"phase": "response"}
    swapped = stream.table.part.copy()
    choose, report = PARTS.index("choose"), PARTS.index("report")
    swapped[stream.table.part == choose], swapped[stream.table.part == report] = report, choose
    other = _with_table(stream, replace(stream.table, part=swapped))
    assert list(sweep.columns) == SWEEP_COLUMNS and len(sweep) == 2 * (3 + 1)
    for point, transcoders in pilots.items():
        long = evaluate_transcoders(other, statistics, transcoders, SETTINGS)
        for layer in ("0", "1", "2"):
            row = of_point(sweep, point, layer)
            for column in ("l0", "fvu", "dead_share", "dense_share"):
                assert row[column] == pytest.approx(one(long, quantity=column, layer=layer), abs=1e-9)
            for end, column in (("value", "ce_increase_nats"), ("low", "ce_low"), ("high", "ce_high")):
                expected = one(long, end, quantity="ce_increase_nats", layer=layer, **response)
                assert row[column] == pytest.approx(expected, abs=1e-9)
            assert row["fvu_linear"] == pytest.approx(one(long, quantity="fvu", layer=layer, at="linear"))
            for floor in FLOORS:
                expected = one(long, quantity="ce_increase_nats", layer=layer, at=floor, **response)
                assert row[f"{floor}_nats"] == pytest.approx(expected, abs=1e-9)
            for column, end in (("ce_recovered", "value"), ("recovered_low", "low"), ("recovered_high", "high")):
                expected = one(long, end, quantity="ce_recovered_mean", layer=layer, **response)
                assert row[column] == pytest.approx(expected)
            assert (row["expansion"], row["k"], row["latents"]) == (POINTS[point].expansion, POINTS[point].k, 24)
            assert row["n_problems"] == 7
            assert row["n_tokens"] == one(long, "n_tokens", quantity="kl_nats", layer=layer, **response)


def test_text_without_responses_is_judged_on_all_its_targets():
    sums = np.zeros((3, len(TARGET_PHASES), TARGETS + 1))
    sums[:, list(TARGET_PHASES).index("all"), TARGETS] = 5
    assert list(TARGET_PHASES)[headline_phase(sums)] == "all"
    sums[1, list(TARGET_PHASES).index("response"), TARGETS] = 1
    assert list(TARGET_PHASES)[headline_phase(sums)] == "response"


def test_the_pilot_layers_together_are_judged_by_the_worst(sweep):
    for point in POINTS:
        alone, together = rows(sweep[sweep["layer"] != "all"], point=point), of_point(sweep, point, "all")
        for column in ("ce_increase_nats", "fvu", "fvu_linear", "dead_share", "dense_share"):
            assert together[column] == alone[column].max()
        assert together["l0"] == pytest.approx(alone["l0"].mean())
        worst = alone.loc[alone["ce_increase_nats"].idxmax()]
        assert (together["ce_low"], together["ce_high"]) == (worst["ce_low"], worst["ce_high"])
        for floor in FLOORS:
            assert together[f"{floor}_nats"] == pytest.approx(alone[f"{floor}_nats"].sum())


def test_what_is_recovered_is_pooled_over_the_informative_layers(stream, statistics, pilots, sweep):
    """1 - sum of CE added / sum of CE that mean ablation adds, over the layers where the latter is enough."""
    costs = rows(sweep, point="x2k4").set_index("layer")["mean_ablation_nats"].drop("all").sort_values()
    limit = float(costs.iloc[:2].mean())  # between the two smallest
    found = evaluate_sweep(stream, statistics, pilots, POINTS, SETTINGS, 10_000, limit)
    for point in POINTS:
        alone = rows(sweep, point=point).set_index("layer").loc[list(costs.index[1:])]
        expected = 1 - alone["ce_increase_nats"].sum() / alone["mean_ablation_nats"].sum()
        row = of_point(found, point, "all")
        assert row["ce_recovered"] == pytest.approx(expected)
        assert row["recovered_low"] <= row["ce_recovered"] <= row["recovered_high"]
    none = evaluate_sweep(stream, statistics, pilots, POINTS, SETTINGS, 10_000, 1e6)
    assert rows(none, layer="all")["ce_recovered"].isna().all()
    assert rows(none, layer="1")["ce_recovered"].notna().all()


# ------------------------------------------------------------------------------------------- trained elsewhere


def fitted_skip(given, output) -> Transcoder:
    """A skip-only transcoder, fitted on some tensors with a bias."""
    design = torch.cat([given, torch.ones(len(given), 1)], dim=1).double()
    solution = torch.linalg.lstsq(design, output.double()).solution.float()
    return silent(skip=solution[:-1].T.contiguous(), bias=solution[-1])


@torch.no_grad()
def around_the_mlp(model, stream, layer):
    """(residual stream before the norm, MLP input, MLP output, block output) of every calibration token."""
    block, seen = model.model.layers[layer], {}
    keep = lambda name: lambda _m, given, output: seen.update({name: (given[0][0], output[0])})  # noqa: E731
    hooks = [block.post_attention_layernorm.register_forward_hook(keep("norm"))]
    hooks += [block.mlp.register_forward_hook(keep("mlp")), block.register_forward_hook(keep("block"))]
    parts, table = [], stream.table
    for document in table.documents_of("calibrate"):
        ids = torch.from_numpy(table.ids[table.starts[document] : table.starts[document + 1]].astype(np.int64))
        model(ids[None])
        whole = seen["block"][1]
        parts.append((seen["norm"][0], *seen["mlp"], whole[0] if whole.ndim == 3 else whole))
    [hook.remove() for hook in hooks]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_transcoder_of_something_else_is_refused_and_one_of_the_mlp_is_not(model, stream, statistics, layer):
    before_norm, given, output, block = around_the_mlp(model, stream, layer)
    made = {
        "before the norm": fitted_skip(before_norm, output),
        "the whole block": fitted_skip(given, block),
        "from residual to residual": fitted_skip(before_norm, block),
        "another layer": perfect(model, (layer + 1) % 3),
    }
    for what, transcoder in made.items():
        fvu, linear = unexplained(stream, statistics, {layer: transcoder}, 10_000)[layer]
        assert fvu > linear + 0.05, what
        with pytest.raises(ArtefactError, match=rf"{what}: .*layer {layer} leaves .*layers\.\*\.mlp.*before the norm"):
            refuse_unfaithful(layer, fvu, linear, what)
    fvu, linear = unexplained(stream, statistics, {layer: perfect(model, layer)}, 10_000)[layer]
    assert 0 <= fvu < 1e-9 < linear < 1
    refuse_unfaithful(layer, fvu, linear, "from elsewhere")


def test_the_linear_map_is_judged_on_problems_that_it_was_not_fitted_on(stream, statistics):
    """On its own tokens it explains more: the difference is what judging it there would hide."""
    fvu, linear = unexplained(stream, statistics, {1: silent()}, 10_000)[1]
    table = stream.table
    documents = table.documents_of("calibrate")
    problems = np.unique(table.problem[documents])
    halves = [documents[np.isin(table.problem[documents], problems[start::2])] for start in (0, 1)]
    given, output = [], []
    for half in halves:
        blocks = list(stream(half))
        kept = [unmasked(block, 1, statistics[1], stream.settings)[0] for block in blocks]
        x = torch.cat([block.activations[1][inside] for block, inside in zip(blocks, kept, strict=True)])
        given.append(x[:, 0])
        output.append(x[:, 1])
    fitted = fitted_skip(given[0], output[0])
    errors = [
        float((y - fitted(x)).double().square().sum() / (y - y.mean(0)).double().square().sum())
        for x, y in zip(given, output, strict=True)
    ]
    assert linear == pytest.approx(errors[1], rel=1e-3) and errors[0] < errors[1]
    y = output[1].double()
    assert fvu == pytest.approx(float(y.square().sum() / (y - y.mean(0)).square().sum()), rel=1e-5)


@pytest.mark.parametrize(("fvu", "linear"), [(1.0, 1.2), (1.08, 2.0), (0.5, 0.4), (float("nan"), 0.5)])
def test_worse_than_the_mean_or_than_the_best_linear_map_is_refused(fvu, linear):
    with pytest.raises(ArtefactError, match="somewhere: the transcoder of layer 3"):
        refuse_unfaithful(3, fvu, linear, "somewhere")


def test_as_good_as_the_best_linear_map_is_taken():
    refuse_unfaithful(3, 0.4, 0.4, "somewhere")
