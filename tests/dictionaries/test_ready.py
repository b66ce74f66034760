"""A transcoder from elsewhere is taken for a layer's MLP only if its folder says that it was trained there."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from reasondiff.config import ReadyTranscoders
from reasondiff.dictionaries.ready import find_ready, read_ready
from reasondiff.dictionaries.transcoder import CONFIG, WEIGHTS, Transcoder, load_transcoder, save_transcoder
from reasondiff.hub import HubError
from reasondiff.models.load import load_model
from reasondiff.store import ArtefactError, file_digest

with contextlib.redirect_stdout(io.StringIO()):  # it says on import that it has no triton
    import sparsify

WIDTH = 6


def save(root: Path, *names: str, width: int = WIDTH, card=None) -> Path:
    """Random transcoders, different ones, in folders of these names."""
    for name in names:
        generator = torch.Generator().manual_seed(sum(name.encode()))
        make = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731, B023
        weights = make(8, width), make(8), make(8, width), make(width), make(width, width)
        save_transcoder(root / name, Transcoder(*weights, 2, card or {}))
    return root


def local(folder, hookpoint: str | None = None) -> ReadyTranscoders:
    return ReadyTranscoders(folder=str(folder), repo=None, revision=None, hookpoint=hookpoint)


HUB = ReadyTranscoders(folder=None, repo="some/transcoders", revision="main", hookpoint=None)


@pytest.fixture
def hub(monkeypatch):
    """`hub(folder)`: snapshot_download gives that folder, or raises what is given; returns the calls it gets."""

    def answer_with(answer):
        calls = []

        def download(repo, revision, repo_type, allow_patterns):
            calls.append((repo, revision, allow_patterns))
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return calls

    return answer_with


# ------------------------------------------------------------------------------------------------ finding


@pytest.mark.parametrize("prefix", ["", "model."])
def test_folders_are_found_by_the_names_that_sparsify_gives_them(tmp_path, prefix):
    save(tmp_path, *(f"{prefix}layers.{layer}.mlp" for layer in (1, 2, 12)))
    found = find_ready(local(tmp_path), [2, 12])
    assert found == {layer: tmp_path / f"{prefix}layers.{layer}.mlp" for layer in (2, 12)}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("layer_{layer}", "layer_3"),
        ("mlp/{layer}/final/", "mlp/3/final"),
        ("layers.{layer}.mlp/seed1", "layers.3.mlp/seed1"),
        ("h.{layer}.mlp", "h.3.mlp"),
    ],
)
def test_other_names_are_found_by_the_hookpoint_of_the_config(tmp_path, pattern, name):
    save(tmp_path, name, "layers.3")
    assert find_ready(local(tmp_path, pattern), [3]) == {3: tmp_path / name}


def test_an_mlp_is_found_beside_whole_blocks_and_the_run_s_own_files(tmp_path):
    save(tmp_path, "layers.3.mlp", "layers.3", "layers.3.self_attn", "best/layers.3.mlp/layers.3.mlp")
    (tmp_path / "config.json").write_text("{}")
    assert find_ready(local(tmp_path), [3]) == {3: tmp_path / "layers.3.mlp"}


def test_of_the_hub_the_configs_and_the_wanted_weights_alone_are_fetched(tmp_path, hub):
    commit = save(tmp_path / "0123abc", "layers.1.mlp", "layers.2.mlp")
    calls = hub(commit)
    assert find_ready(HUB, [2]) == {2: commit / "layers.2.mlp"}
    weights = ["layers.2.mlp/sae.safetensors", "model.layers.2.mlp/sae.safetensors"]
    assert calls == [("some/transcoders", "main", ["*cfg.json", *weights])]


# ------------------------------------------------------------------------------------------------ reading


def test_each_layer_is_read_and_its_card_says_where_it_is_from(tmp_path):
    save(tmp_path, "model.layers.0.mlp", "model.layers.2.mlp", card={"made": "there"})
    read = read_ready(local(tmp_path), [0, 2], WIDTH, 3, "tiny")
    assert set(read) == {0, 2} and not torch.equal(read[0].encoder, read[2].encoder)
    folder = tmp_path / "model.layers.2.mlp"
    assert torch.equal(read[2].encoder, load_transcoder(folder).encoder) and read[2].k == 2
    assert read[2].card == {
        "trainer": "elsewhere",
        "folder": str(tmp_path),
        "hookpoint": "model.layers.2.mlp",
        "weights_digest": file_digest(folder / WEIGHTS),
        "config_digest": file_digest(folder / CONFIG),
        "own_card": {"made": "there"},
    }


def test_from_the_hub_the_card_has_the_commit_and_not_the_branch(tmp_path, hub):
    hub(save(tmp_path / "0123abc", "layers.1.mlp"))
    card = read_ready(HUB, [1], WIDTH, 3, "tiny")[1].card
    assert (card["repo"], card["revision"], card["hookpoint"]) == ("some/transcoders", "0123abc", "layers.1.mlp")
    assert "folder" not in card and card["own_card"] == {}


def test_another_k_is_another_card(tmp_path):
    """k is in cfg.json alone: equal weights with another k are another function."""
    save(tmp_path, "layers.1.mlp")
    first = read_ready(local(tmp_path), [1], WIDTH, 3, "tiny")[1].card
    config = json.loads((tmp_path / "layers.1.mlp" / CONFIG).read_text())
    (tmp_path / "layers.1.mlp" / CONFIG).write_text(json.dumps({**config, "k": 3}))
    second = read_ready(local(tmp_path), [1], WIDTH, 3, "tiny")[1].card
    assert first["weights_digest"] == second["weights_digest"] and first["config_digest"] != second["config_digest"]


def test_transcoders_of_another_width_are_refused_with_file_and_model(tmp_path):
    save(tmp_path, "layers.1.mlp")
    with pytest.raises(ArtefactError, match=r"layers\.1\.mlp/sae\.safetensors is for .* 6 units, model 'tiny' has 16"):
        read_ready(local(tmp_path), [1], 16, 3, "tiny")


def test_a_layer_that_the_model_has_not_is_refused_before_anything_is_fetched(hub):
    calls = hub(AssertionError("fetched"))
    with pytest.raises(ArtefactError, match=r"model 'tiny' has 3 layers \(0 to 2\); .* \[3\] were asked for"):
        read_ready(HUB, [2, 3], WIDTH, 3, "tiny")
    assert calls == []


def test_a_checkpoint_without_its_config_is_refused_by_the_loader(tmp_path):
    save(tmp_path, "layers.1.mlp")
    (tmp_path / "layers.1.mlp" / CONFIG).unlink()
    with pytest.raises(ArtefactError, match="cfg.json is missing: without it k is not known"):
        read_ready(local(tmp_path), [1], WIDTH, 3, "tiny")


# ------------------------------------------------------------------------------------------------ refusals


@pytest.fixture(scope="module")
def whole_blocks(small_models, tmp_path_factory):
    """A run of sparsify's own trainer with `layers`, as its --layers does."""
    folder = tmp_path_factory.mktemp("run")
    model = load_model(small_models["qwen2"], "cpu", "float32").model
    coder = sparsify.SparseCoderConfig(expansion_factor=2, k=2, transcode=True, skip_connection=True)
    places = {"save_dir": str(folder), "run_name": "blocks", "log_to_wandb": False}
    settings = sparsify.TrainConfig(coder, batch_size=2, layers=[0, 2], **places)
    rows = [{"input_ids": torch.from_numpy(np.arange(i, i + 20))} for i in range(4)]
    with torch.random.fork_rng():
        sparsify.Trainer(settings, rows, model).fit()
    torch.set_float32_matmul_precision("highest")
    return folder / "blocks"


def test_what_sparsify_trains_with_layers_is_refused_as_trained_on_the_whole_block(whole_blocks):
    assert load_transcoder(whole_blocks / "layers.2").width == 16  # nothing in it says so but the folder's name
    message = r"layers\.2 was trained on the whole block .*hookpoint layers\.2, expected layers\.2\.mlp"
    with pytest.raises(ArtefactError, match=message):
        find_ready(local(whole_blocks), [2])
    with pytest.raises(ArtefactError, match=message):  # naming the folders does not help
        find_ready(local(whole_blocks, "layers.{layer}"), [2])


@pytest.mark.parametrize("place", ["self_attn", "post_attention_layernorm", "mlp.down_proj"])
@pytest.mark.parametrize("named", [True, False])
def test_what_was_trained_elsewhere_in_the_block_is_refused(tmp_path, place, named):
    save(tmp_path, f"layers.3.{place}")
    ready = local(tmp_path, f"layers.{{layer}}.{place}" if named else None)
    with pytest.raises(ArtefactError, match=f"was trained on {place} of the block: .* expected layers.3.mlp"):
        find_ready(ready, [3])


@pytest.mark.parametrize("names", [("layer_3", "layer_4"), ("layers.3.mlp/seed0", "layers.3.mlp/seed1")])
def test_names_that_say_nothing_need_a_hookpoint_in_the_config(tmp_path, names):
    save(tmp_path, *names)
    with pytest.raises(ArtefactError, match=f"has {', '.join(names)}: these names do not say .*`hookpoint`"):
        find_ready(local(tmp_path), [3])


def test_missing_layers_are_named_with_what_is_there(tmp_path):
    save(tmp_path, "layers.2.mlp", "layers.10.mlp")
    message = r"no transcoder of layer\(s\) \[3, 11\] \(expected layers\.3\.mlp, layers\.11\.mlp\)"
    with pytest.raises(ArtefactError, match=message + r"; there is layers\.2\.mlp, layers\.10\.mlp$"):
        find_ready(local(tmp_path), [3, 2, 11])
    with pytest.raises(ArtefactError, match=r"expected l3\); there is layers\.2\.mlp, layers\.10\.mlp$"):
        find_ready(local(tmp_path, "l{layer}"), [3])


def test_of_many_folders_the_first_are_shown(tmp_path):
    save(tmp_path, *(f"layers.{layer}.mlp" for layer in range(12)))
    with pytest.raises(ArtefactError, match=r"layers\.0\.mlp, .*layers\.7\.mlp and 4 more$"):
        find_ready(local(tmp_path), [12])


def test_a_folder_named_for_another_layer_is_refused(tmp_path):
    save(tmp_path, "layers.1.mlp/copy_3")
    with pytest.raises(ArtefactError, match="is of layer 1 by its name, but was named for 3"):
        find_ready(local(tmp_path, "layers.1.mlp/copy_{layer}"), [3])


def test_two_folders_for_one_layer_are_refused(tmp_path):
    save(tmp_path, "layers.3.mlp", "model.layers.3.mlp")
    with pytest.raises(ArtefactError, match=r"has both layers\.3\.mlp and model\.layers\.3\.mlp"):
        find_ready(local(tmp_path), [3])
    assert find_ready(local(tmp_path, "model.layers.{layer}.mlp"), [3]) == {3: tmp_path / "model.layers.3.mlp"}


def test_a_folder_without_transcoders_or_of_a_single_one_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match="there is no folder .*nowhere"):
        find_ready(local(tmp_path / "nowhere"), [3])
    with pytest.raises(ArtefactError, match="holds no transcoder"):
        find_ready(local(tmp_path), [3])
    save(tmp_path, "layers.3.mlp")
    with pytest.raises(ArtefactError, match="is itself the folder of a transcoder"):
        find_ready(local(tmp_path / "layers.3.mlp"), [3])


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline"), OSError("no network")])
def test_a_hub_that_cannot_be_reached_is_an_error_that_says_what_to_do(hub, error):
    hub(error)
    with pytest.raises(HubError, match=r"some/transcoders \(model\) at revision main cannot be fetched.*HF_HOME"):
        find_ready(HUB, [1])
