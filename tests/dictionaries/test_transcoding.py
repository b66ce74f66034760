"""A model's transcoders are the same files whoever is trained beside them, in however many groups, and however often
the training was interrupted; and only what has to be trained is trained."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlps import WIDTH, PlantedMlp, PlantedMlps, schedule, transcoder_point, unexplained, unexplained_by_a_linear_map
from streams import made_up_table

from reasondiff.config import Tracking
from reasondiff.dictionaries import transcoding
from reasondiff.dictionaries.checkpoint import read_checkpoint
from reasondiff.dictionaries.planning import GIB, PlanError
from reasondiff.dictionaries.transcoder import CONFIG, WEIGHTS, TranscoderFolders, load_transcoder, save_transcoder
from reasondiff.dictionaries.transcoder_trainer import Recipe
from reasondiff.dictionaries.transcoding import HISTORY, train_transcoders
from reasondiff.models.load import ModelError
from reasondiff.models.stream import ActivationStream
from reasondiff.store import ArtefactError, read_card, read_json_lines

LAYERS = (1, 2)
POINTS = {"x4k5": transcoder_point(), "x2k3": transcoder_point(expansion=2, k=3)}
SCHEDULE = schedule()
RECIPE = Recipe(auxiliary_weight=1 / 32, stale_after_tokens=1000, selection="float32")
NOTHING = Tracking(kind="none", project="p", mode="offline")
CHECKPOINT = "checkpoint.safetensors"
PARAMETERS = ("encoder", "encoder_bias", "decoder", "decoder_bias", "skip")
# one transcoder alone takes 98 or 69 kB, those of a layer 110 kB together, three of two layers 170 kB
ROOM_FOR_ONE, ROOM_FOR_A_LAYER, ROOM_FOR_THREE = (bytes_ / GIB for bytes_ in (118_000, 163_000, 188_000))


def train(folder, stream=None, points=POINTS, code="code", seed=0, starts=None, memory_gib=None, **changes):
    """Trains into `folder`; the settings are those above unless given."""
    folders, settings = TranscoderFolders(str(folder), seed), {"schedule": SCHEDULE, "recipe": RECIPE, **changes}
    train_transcoders(
        stream or PlantedMlps(LAYERS), points, **settings, folders=folders, starts=starts or {}, memory_gib=memory_gib,
        tracking=NOTHING, code=code, checkpoint=Path(folder) / CHECKPOINT,
    )  # fmt: skip
    return folders


def contents(folder) -> dict[str, bytes]:
    """Every file by its place in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def written(folder) -> dict[tuple[int, str], int]:
    """When the weights of each (layer, point) were written."""
    found = {}
    for path in folder.rglob(WEIGHTS):
        point, _, hookpoint, _ = path.relative_to(folder).parts
        found[int(hookpoint.split(".")[1]), point] = path.stat().st_mtime_ns
    return found


def retrained(before: dict, after: dict) -> set:
    return {key for key, time in after.items() if before.get(key) != time}


def everything(points=POINTS) -> set:
    return {(layer, name) for layer in LAYERS for name in points}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files of a training that nothing disturbed: both points at both layers at once."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return contents(folder)


@pytest.fixture
def trained_once(tmp_path, whole):
    """The same files in a folder of this test's own, and when each was written."""
    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return written(tmp_path)


# ------------------------------------------------------------------------------------------------ the files


def test_each_layer_and_point_gets_three_files_and_no_checkpoint_is_left(whole):
    places = [f"{point}/seed0/layers.{layer}.mlp" for point in POINTS for layer in LAYERS]
    assert set(whole) == {f"{place}/{file}" for place in places for file in (WEIGHTS, CONFIG, HISTORY)}


def test_what_is_on_disk_imitates_the_mlp_of_its_layer_and_not_of_the_other(tmp_path):
    folders = train(tmp_path, points={"x4k5": POINTS["x4k5"]}, schedule=schedule(tokens=40_000))
    stream = PlantedMlps(LAYERS)
    for layer in LAYERS:
        x = stream.activations[layer]
        own, other = (load_transcoder(folders.path("x4k5", chosen)) for chosen in (layer, 3 - layer))
        assert unexplained(own(x[:, 0]), x[:, 1]) < 0.2 < 0.8 < unexplained(other(x[:, 0]), x[:, 1])


def test_a_transcoder_says_how_it_was_made(tmp_path):
    folders = train(tmp_path)
    card = read_card(folders.path("x2k3", 2) / WEIGHTS)
    assert (card["kind"], card["hookpoint"], card["layer"], card["name"]) == ("transcoder", "layers.2.mlp", 2, "x2k3")
    assert card["point"]["k"] == load_transcoder(folders.path("x2k3", 2)).k == 3
    assert card["place"] == "mlp" and card["models"] == [["planted", "planted"]] and card["started_from"] is None
    assert card["tokens_seen"] == 3000 and card["steps"] == 30 and card["seed"] == 0 and card["code"] == "code"
    assert card["recipe"] == {"auxiliary_weight": 1 / 32, "stale_after_tokens": 1000, "selection": "float32"}
    rows = read_json_lines(folders.path("x2k3", 2) / HISTORY)
    assert [row["step"] for row in rows] == [20, 30] and rows[-1]["tokens"] == 3000
    assert card["last_batch"] == {key: rows[-1][key] for key in ("loss", "fve", "l0")}


# ------------------------------------------------------------------------------------------------ independence


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_trained_alone_gives_the_same_files(tmp_path, whole, layer):
    train(tmp_path, PlantedMlps([layer], mlps={layer: PlantedMlp.random(seed=layer)}))
    assert contents(tmp_path) == {name: data for name, data in whole.items() if f"layers.{layer}.mlp" in name}


@pytest.mark.parametrize("name", POINTS)
def test_a_point_trained_alone_gives_the_same_files(tmp_path, whole, name):
    train(tmp_path, points={name: POINTS[name]})
    assert contents(tmp_path) == {place: data for place, data in whole.items() if place.startswith(name)}


def test_points_in_another_order_give_the_same_files(tmp_path, whole):
    train(tmp_path, points=dict(reversed(POINTS.items())))
    assert contents(tmp_path) == whole


def test_points_layers_and_seeds_begin_differently(tmp_path):
    two = {"one": transcoder_point(), "two": transcoder_point()}
    short = schedule(tokens=100)
    first, second = (train(tmp_path / str(seed), points=two, seed=seed, schedule=short) for seed in (0, 1))
    encoders = [
        load_transcoder(f.path(name, layer)).encoder for f in (first, second) for name in two for layer in LAYERS
    ]
    for index, encoder in enumerate(encoders):
        assert not any(torch.allclose(encoder, other, atol=0.05) for other in encoders[:index])


@pytest.fixture(scope="module")
def open_mlps(small_models, numbers_table, stream_settings):
    """`open_mlps(layers, table)`: the MLPs of a real, if tiny, Qwen2 model."""

    def make(layers, table=numbers_table):
        settings = (stream_settings(), 200, "cpu", "float32", "mlp")
        return ActivationStream([small_models["qwen2"]], layers, table, [], *settings)

    return make


@pytest.fixture(scope="module")
def all_layers_of_qwen(open_mlps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    train(folder, open_mlps([0, 1, 2]))
    return contents(folder)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_pass_over_the_text_gives_each_layer_what_a_pass_of_its_own_gives(
    tmp_path, open_mlps, all_layers_of_qwen, layer
):
    train(tmp_path, open_mlps([layer]))
    expected = {name: data for name, data in all_layers_of_qwen.items() if f"layers.{layer}.mlp" in name}
    assert contents(tmp_path) == expected and len(expected) == 6


def test_a_real_mlp_is_imitated_better_by_what_was_learnt_than_by_its_mean(open_mlps, numbers_table, tmp_path):
    folders = train(tmp_path, open_mlps([0, 2]), schedule=schedule(tokens=8_000))
    blocks = list(open_mlps([0, 2])(numbers_table.documents_of("train")))
    for layer in (0, 2):
        x = torch.cat([block.activations[layer][block.kept] for block in blocks])
        assert unexplained(load_transcoder(folders.path("x4k5", layer))(x[:, 0]), x[:, 1]) < 0.3


# ------------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize(
    ("memory_gib", "groups"), [(1.0, 1), (ROOM_FOR_THREE, 2), (ROOM_FOR_A_LAYER, 2), (ROOM_FOR_ONE, 4)]
)
def test_a_training_split_into_groups_gives_the_same_files_and_says_how_it_is_split(
    tmp_path, whole, caplog, memory_gib, groups
):
    with caplog.at_level(logging.INFO):
        train(tmp_path, memory_gib=memory_gib)
    assert contents(tmp_path) == whole
    said = [record.getMessage() for record in caplog.records]
    assert (
        f"4 dictionaries in {groups} group(s) of one pass over 3,000 tokens each; {memory_gib:.3g} GiB may be taken"
        in said
    )
    of_groups = [re.fullmatch(r"group (\d+): (\d+) dictionaries of layer\(s\) (.*), (\S+) GiB", line) for line in said]
    found = [match for match in of_groups if match]
    assert [int(match[1]) for match in found] == list(range(1, groups + 1))
    assert sum(int(match[2]) for match in found) == 4
    assert all(0 < float(match[4]) <= memory_gib for match in found)


def test_each_group_reads_the_text_once_more_and_its_own_layers_alone(tmp_path):
    """The first four readings are those of calibration; what each group fits its linear maps on, it reads itself."""
    readings = []
    for memory_gib in (1.0, ROOM_FOR_ONE):
        stream = PlantedMlps(LAYERS)
        train(tmp_path / str(memory_gib), stream, memory_gib=memory_gib)
        assert stream.layers_read[:4] == [LAYERS] * 4
        readings.append(stream.layers_read[4:])
    one_group, four_groups = readings
    assert set(one_group) == {LAYERS}
    each = len(one_group)
    assert four_groups == [(1,)] * 2 * each + [(2,)] * 2 * each


def test_a_transcoder_that_does_not_fit_alone_stops_the_job_before_anything_is_trained(tmp_path):
    with pytest.raises(PlanError, match=r"layer 1, 'x4k5' alone takes .* GiB.*`memory_gib`"):
        train(tmp_path, memory_gib=80_000 / GIB)
    assert contents(tmp_path) == {}


def test_a_point_with_fewer_latents_than_k_stops_the_job_before_anything_is_trained(tmp_path):
    """What it would leave could not be read."""
    stream = PlantedMlps(LAYERS)
    with pytest.raises(ModelError, match=f"'tiny'.*{WIDTH} latents.*expansion 1.*k = 13"):
        train(tmp_path, stream, {"tiny": transcoder_point(expansion=1, k=WIDTH + 1)})
    assert contents(tmp_path) == {} and stream.reads == 0


# ------------------------------------------------------------------------------------------------ interruptions


class Interrupted(Exception):
    pass


def interrupt():
    raise Interrupted


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


OFTEN = schedule(checkpoint_minutes=1e-9)


@pytest.mark.parametrize(
    ("memory_gib", "places"),
    [(None, (3, 5, 14, 14, 11)), (ROOM_FOR_A_LAYER, (3, 5, 14, 14, 11, 30, 12)), (ROOM_FOR_THREE, (22, 22, 32))],
)
def test_a_training_interrupted_again_and_again_ends_with_the_same_files(tmp_path, whole, memory_gib, places):
    """While calibrating (four readings), fitting linear maps (two), in the middle, and in the second group."""
    for place in places:
        with pytest.raises(Interrupted):
            stream = PlantedMlps(LAYERS, before_read={place: interrupt})
            train(tmp_path, stream, schedule=OFTEN, memory_gib=memory_gib)
    train(tmp_path, schedule=OFTEN, memory_gib=memory_gib)
    assert contents(tmp_path) == whole


def test_what_was_read_before_an_interruption_is_not_read_again(tmp_path):
    undisturbed = PlantedMlps(LAYERS)
    train(tmp_path / "undisturbed", undisturbed)
    with pytest.raises(Interrupted):
        train(tmp_path, PlantedMlps(LAYERS, before_read={undisturbed.reads - 2: interrupt}), schedule=OFTEN)
    assert (tmp_path / CHECKPOINT).exists()
    resumed = PlantedMlps(LAYERS)
    train(tmp_path, resumed, schedule=OFTEN)
    assert resumed.reads < undisturbed.reads / 2 and not (tmp_path / CHECKPOINT).exists()


def test_a_finished_group_is_kept_when_a_later_one_is_interrupted(tmp_path, whole):
    stream = PlantedMlps(LAYERS)
    train(tmp_path / "undisturbed", stream, memory_gib=ROOM_FOR_A_LAYER)
    folder = tmp_path / "interrupted"
    late = PlantedMlps(LAYERS, before_read={stream.reads - 5: interrupt})
    with pytest.raises(Interrupted):
        train(folder, late, schedule=OFTEN, memory_gib=ROOM_FOR_A_LAYER)
    before = written(folder)
    assert set(before) == {(1, "x4k5"), (1, "x2k3")}
    train(folder, schedule=OFTEN, memory_gib=ROOM_FOR_A_LAYER)
    assert retrained(before, written(folder)) == {(2, "x4k5"), (2, "x2k3")}
    assert contents(folder) == whole


def test_an_interruption_while_the_files_are_written_ends_with_the_same_files(tmp_path, whole, monkeypatch):
    """Those that are whole by then are kept."""
    saved = []

    def save_two(folder, transcoder):
        if len(saved) == 2:
            raise Interrupted
        saved.append(folder)
        save_transcoder(folder, transcoder)

    monkeypatch.setattr(transcoding, "save_transcoder", save_two)
    with pytest.raises(Interrupted):
        train(tmp_path, schedule=OFTEN)
    monkeypatch.undo()
    before = written(tmp_path)
    train(tmp_path, schedule=OFTEN)
    assert len(before) == 2 and retrained(before, written(tmp_path)) == everything() - set(before)
    assert contents(tmp_path) == whole


KILLED = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
torch.set_num_threads(1)
from test_transcoding import LAYERS, OFTEN, PlantedMlps, kill, train
train(sys.argv[3], PlantedMlps(LAYERS, before_read={25: kill}), schedule=OFTEN)
"""


def test_a_killed_process_leaves_a_checkpoint_to_go_on_from(tmp_path, whole):
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", KILLED, str(here), str(here.parents[1] / "scripts"), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    assert set(contents(tmp_path)) == {CHECKPOINT}
    state = read_checkpoint(tmp_path / CHECKPOINT)
    steps = [trainer["steps"] for site in state["sites"].values() for trainer in site["trainers"].values()]
    assert len(steps) == 4 and all(0 < count < 30 for count in steps)
    train(tmp_path, schedule=OFTEN)
    assert contents(tmp_path) == whole


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(tmp_path, whole):
    with pytest.raises(Interrupted):
        train(tmp_path, PlantedMlps(LAYERS, before_read={25: interrupt}), schedule=OFTEN, code="other")
    train(tmp_path, schedule=OFTEN)
    assert contents(tmp_path) == whole


def test_a_checkpoint_is_removed_even_when_nothing_is_left_to_train(tmp_path, trained_once):
    """As after a job that was killed when it had just written its last file."""
    (tmp_path / CHECKPOINT).write_bytes(b"gigabytes")
    train(tmp_path)
    assert written(tmp_path) == trained_once and not (tmp_path / CHECKPOINT).exists()


# ------------------------------------------------------------------------------------------------ what is trained


def test_finished_ones_are_kept_and_nothing_is_read(tmp_path, trained_once):
    stream = PlantedMlps(LAYERS)
    train(tmp_path, stream)
    assert written(tmp_path) == trained_once and stream.reads == 0


def test_a_point_with_another_k_alone_is_trained_again(tmp_path, trained_once):
    changed = {**POINTS, "x2k3": transcoder_point(expansion=2, k=4)}
    folders = train(tmp_path, points=changed)
    assert retrained(trained_once, written(tmp_path)) == {(layer, "x2k3") for layer in LAYERS}
    assert load_transcoder(folders.path("x2k3", 1)).k == 4 and load_transcoder(folders.path("x4k5", 1)).k == 5


def test_a_new_point_and_a_new_layer_alone_are_trained(tmp_path, trained_once):
    train(tmp_path, points={**POINTS, "more": transcoder_point(k=7)})
    after = written(tmp_path)
    assert retrained(trained_once, after) == {(layer, "more") for layer in LAYERS}
    mlps = {layer: PlantedMlp.random(seed=layer) for layer in (1, 2, 3)}
    train(tmp_path, PlantedMlps((1, 2, 3), mlps=mlps))
    assert retrained(after, written(tmp_path)) == {(3, name) for name in POINTS}


@pytest.mark.parametrize("lost", [WEIGHTS, CONFIG, HISTORY])
def test_one_that_lost_a_file_is_trained_again_to_the_same_bits(tmp_path, trained_once, whole, lost):
    (TranscoderFolders(str(tmp_path), 0).path("x4k5", 2) / lost).unlink()
    train(tmp_path)
    assert retrained(trained_once, written(tmp_path)) == {(2, "x4k5")}
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("kept", [-10, 100, 0])
def test_truncated_weights_are_trained_again(tmp_path, trained_once, whole, kept):
    path = TranscoderFolders(str(tmp_path), 0).path("x2k3", 1) / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    train(tmp_path)
    assert retrained(trained_once, written(tmp_path)) == {(1, "x2k3")}
    assert contents(tmp_path) == whole


def changed_text(what: str) -> PlantedMlps:
    table = made_up_table()
    if what == "ids":
        table.ids[0] += 1
    else:  # the same documents, but other ones are for training
        table.part[:] = (table.part + 1) % 5
    return PlantedMlps(LAYERS, table)


CHANGES = {
    "other code": lambda: {"code": "other"},
    "other ids": lambda: {"stream": changed_text("ids")},
    "other parts of the text": lambda: {"stream": changed_text("parts")},
    "another buffer": lambda: {"schedule": schedule(buffer_tokens=500)},
    "another clip": lambda: {"schedule": schedule(gradient_clip=0.5)},
    "another auxiliary weight": lambda: {"recipe": replace(RECIPE, auxiliary_weight=0.1)},
    "another time to be stale": lambda: {"recipe": replace(RECIPE, stale_after_tokens=999)},
    "another selection": lambda: {"recipe": replace(RECIPE, selection="bfloat16")},
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_determines_every_transcoder_trains_all_of_them_again(tmp_path, trained_once, what):
    train(tmp_path, **CHANGES[what]())
    assert retrained(trained_once, written(tmp_path)) == everything()


def test_another_model_or_other_weights_of_it_train_all_of_them_again(tmp_path, trained_once):
    stream = PlantedMlps(LAYERS)
    stream.infos[0].weights_digest = "after more training"
    train(tmp_path, stream)
    assert retrained(trained_once, written(tmp_path)) == everything()


@pytest.mark.parametrize("changes", [{"schedule": OFTEN}, {"memory_gib": ROOM_FOR_ONE}], ids=["checkpoints", "memory"])
def test_what_determines_no_weight_trains_nothing_again(tmp_path, trained_once, changes):
    train(tmp_path, **changes)
    assert retrained(trained_once, written(tmp_path)) == set()


def test_another_seed_has_files_of_its_own(tmp_path, trained_once):
    train(tmp_path, seed=1)
    places = {Path(name).parts[1] for name in contents(tmp_path)}
    assert places == {"seed0", "seed1"}
    assert contents(tmp_path / "x4k5" / "seed0") != contents(tmp_path / "x4k5" / "seed1")


# ------------------------------------------------------------------------------------------------ units


@pytest.mark.parametrize(("factors", "tolerance"), [((4.0, 8.0), 0.0), ((3.0, 7.0), 2e-2)])
def test_larger_inputs_and_outputs_give_the_same_transcoder_in_larger_units(tmp_path, factors, tolerance):
    """By powers of two to the last bit; sinks, scales, weights and figures follow."""
    plain, larger = train(tmp_path / "1"), train(tmp_path / "2", PlantedMlps(LAYERS, factors=factors))
    read, write = factors
    for layer in LAYERS:
        one, two = (load_transcoder(folders.path("x4k5", layer)) for folders in (plain, larger))
        x = PlantedMlp.random(seed=layer).sample(500, seed=9)[:, 0]
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(two.encoder * read, one.encoder, **close)
        torch.testing.assert_close(two.encoder_bias, one.encoder_bias, **close)
        torch.testing.assert_close(two.decoder / write, one.decoder, **close)
        torch.testing.assert_close(two.skip * (read / write), one.skip, **close)
        torch.testing.assert_close(two(x * read) / write, one(x), **close)
        if not tolerance:
            assert (larger.path("x4k5", layer) / HISTORY).read_bytes() == (
                plain.path("x4k5", layer) / HISTORY
            ).read_bytes()


# ------------------------------------------------------------------------------------------------ beginnings

POINT = {"x4k5": POINTS["x4k5"]}
LONG = schedule(tokens=40_000)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Transcoders of layer 1 of a base model."""
    return train(tmp_path_factory.mktemp("base"), PlantedMlps([1]), POINT, schedule=LONG)


def changed_a_little() -> PlantedMlp:
    """The MLP of layer 1 after some more training of its model."""
    mlp, noise = PlantedMlp.random(seed=1), torch.Generator().manual_seed(5)
    moved = [x + 0.15 * x.std() * torch.randn(x.shape, generator=noise) for x in (mlp.reads, mlp.writes, mlp.skip)]
    return PlantedMlp(*moved, mlp.bias + 0.3, mlp.threshold)


def share_of_kept_indices(first, second, x_first, x_second) -> float:
    """Of the latents of the second transcoder that fire, those whose closest in the first has the same number."""
    codes = [t.encode(x[:, 0]).dense() for t, x in ((first, x_first), (second, x_second))]
    live = (codes[0] > 0).any(0) & (codes[1] > 0).any(0)
    correlation = torch.corrcoef(torch.cat(codes, dim=1).T)[: first.n_latents, first.n_latents :].nan_to_num()
    return float((correlation.argmax(0) == torch.arange(first.n_latents))[live].float().mean())


def test_transcoders_that_begin_as_those_of_the_base_keep_their_indices_and_others_do_not(tmp_path, base):
    mlps = {1: changed_a_little()}
    starts = {1: base.path("x4k5", 1)}
    begun = train(
        tmp_path / "begun", PlantedMlps([1], mlps=mlps), POINT, starts=starts, schedule=schedule(tokens=10_000)
    )
    alone = train(tmp_path / "alone", PlantedMlps([1], mlps=mlps), POINT, schedule=LONG, seed=1)
    x_base, x = PlantedMlp.random(seed=1).sample(4000, seed=3), mlps[1].sample(4000, seed=3)
    first, second, other = (load_transcoder(folders.path("x4k5", 1)) for folders in (base, begun, alone))
    assert share_of_kept_indices(first, second, x_base, x) > 0.9
    assert share_of_kept_indices(first, other, x_base, x) < 0.2
    # and it has learnt: the changed MLP is imitated better than by the base's transcoder
    assert unexplained(second(x[:, 0]), x[:, 1]) < 0.5 * unexplained(first(x[:, 0]), x[:, 1])


@pytest.mark.parametrize("factors", [(1.0, 1.0), (3.0, 7.0)])
def test_before_its_first_step_a_transcoder_is_the_best_linear_map_of_the_calibration_tokens(tmp_path, factors):
    """One step at a rate of next to nothing. The oracle: least squares on the unmasked calibration tokens."""
    points, stream = {"x4k5": transcoder_point(learning_rate=1e-12)}, PlantedMlps(LAYERS, factors=factors)
    folders = train(tmp_path, stream, points, schedule=schedule(tokens=100))
    blocks = list(PlantedMlps(LAYERS, factors=factors)(stream.table.documents_of("calibrate")))
    assert sum(len(block.token) for block in blocks) <= stream.settings.calibration_tokens
    for layer in LAYERS:
        begun = load_transcoder(folders.path("x4k5", layer))
        x = torch.cat([block.activations[layer][block.kept] for block in blocks])
        assert unexplained(begun(x[:, 0]), x[:, 1]) == pytest.approx(unexplained_by_a_linear_map(x), rel=1e-3)
        assert unexplained_by_a_linear_map(x) < 0.9  # so that it is not the mean
        assert begun.decoder.abs().max() < 1e-6


def test_before_its_first_step_a_begun_transcoder_is_the_one_it_begins_as(tmp_path, base):
    """One step at a rate of next to nothing; the MLP is that of the base in other units."""
    points = {"x4k5": transcoder_point(learning_rate=1e-12)}
    stream = PlantedMlps([1], factors=(3.0, 7.0))
    begun = train(tmp_path, stream, points, starts={1: base.path("x4k5", 1)}, schedule=schedule(tokens=100))
    first, second = (load_transcoder(folders.path("x4k5", 1)) for folders in (base, begun))
    for name in PARAMETERS:
        torch.testing.assert_close(getattr(second, name), getattr(first, name), rtol=1e-5, atol=1e-6)


def test_the_card_names_what_a_transcoder_began_as_and_another_beginning_trains_it_again(tmp_path, base):
    stream = PlantedMlps([1])
    begun = train(tmp_path, stream, POINT, starts={1: base.path("x4k5", 1)})
    assert re.fullmatch("[0-9a-f]{16}", read_card(begun.path("x4k5", 1) / WEIGHTS)["started_from"])
    before = written(tmp_path)
    train(tmp_path, PlantedMlps([1]), POINT, starts={1: base.path("x4k5", 1)})
    assert written(tmp_path) == before
    train(tmp_path, PlantedMlps([1]), POINT)
    assert retrained(before, written(tmp_path)) == {(1, "x4k5")}


def test_a_transcoder_of_another_size_is_refused_with_both_sizes(tmp_path, base):
    with pytest.raises(ArtefactError, match=f"48 latents of width {WIDTH}.*expected 24 of width {WIDTH}"):
        train(tmp_path, PlantedMlps([1]), {"x2k3": POINTS["x2k3"]}, starts={1: base.path("x4k5", 1)})
    assert contents(tmp_path) == {}
