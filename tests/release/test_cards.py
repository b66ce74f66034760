"""Does a card say what was measured, of what, and under which licence, and does the hub understand it?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from reasondiff.release.cards import card_of
from reasondiff.release.packaging import package

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def written(study, packed, tables, infos):
    """`written(content, study)`: the card."""
    return lambda content, given=study: card_of(packed[content], given, tables, infos)


def line_with(card: str, *words: str) -> str:
    found = [line for line in card.splitlines() if all(word in line for word in words)]
    assert len(found) == 1, found
    return found[0]


def test_repositories_are_named_by_study_content_and_pair_or_model(packed):
    named = {one.name: one.kind for one in packed.values()}
    assert named == {
        "deepscaler-crosscoders-base-distill": "model",
        "deepscaler-transcoders-distill": "model",
        "deepscaler-latents": "dataset",
        "deepscaler-graphs": "dataset",
    }
    assert "traces/layer15/btk50/seed0/crosscoder.safetensors" in packed["crosscoders"].files
    assert "graphs/distill/seed0/sum/answer/graph.json" in packed["graphs"].files


def test_the_hub_reads_licence_models_and_their_commits(written):
    data = ModelCard(written("crosscoders")).data.to_dict()
    assert data["license"] == "mit" and data["library_name"] == "reasondiff" and "crosscoder" in data["tags"]
    repos = ["Qwen/Qwen2.5-Math-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
    assert data["base_model"] == repos and data["base_model_revisions"] == dict.fromkeys(repos, COMMIT)
    assert data["datasets"] == ["open-r1/OpenR1-Math-220k"]


def test_a_study_without_a_licence_says_so(study, written):
    undecided = study.model_copy(update={"release": study.release.model_copy(update={"licence": None})})
    card = written("transcoders", undecided)
    assert ModelCard(card).data.license == "unknown" and "Not decided yet" in card


def test_models_and_texts_have_the_licence_that_was_named_or_say_where_it_is(written):
    card = written("crosscoders")
    assert "| see base model |" in line_with(card, "| `base` |") and "| mit |" in line_with(card, "| `distill` |")
    assert "| apache-2.0 |" in line_with(card, "| `traces` |")
    assert "answers" not in card, "the text that no path names was not read"


def test_a_crosscoder_has_its_figures_with_interval_and_sample(written):
    row = line_with(written("crosscoders"), "btk50", "| base |")
    expected = ["batch_topk", "49,152", "150,000,000", "0.812 (0.801 to 0.820)", "345", "50.0", "3.2 %"]
    assert [cell.strip() for cell in row.split("|")[2:10] if cell.strip() != "base"] == expected
    assert "1 passed, 1 failed, 1 not testable" in row


def test_a_gate_that_fails_is_named_with_its_value_and_limit(written):
    assert "- `traces/layer15/btk50/seed0` fails dense_share (0.25, at most 0.05)" in written("crosscoders")


def test_exclusive_latents_stand_beside_the_control(written):
    card = written("crosscoders")
    row = line_with(card, "| reasoning only |")
    assert "12 of 400 (3.0 %, 1.7 to 5.2)" in row and row.endswith("| 2 of 390 |")
    assert "| shared |" not in card


def test_a_transcoder_has_the_figures_of_all_phases(written):
    row = line_with(written("transcoders"), "layers.3.mlp`", "|")
    assert "0.750 (0.700 to 0.800)" in row and "0.020 (0.010 to 0.030)" in row and "91.3 %" in row
    assert "none asked" in row


def test_labels_that_failed_are_not_counted_as_labelled(written):
    assert "| 2 | 1 | a model |" in written("latents")


def test_a_data_set_without_windows_of_text_says_so(study, written):
    assert "under their licences" in written("latents")
    without = study.model_copy(update={"release": study.release.model_copy(update={"examples": False})})
    assert "left out" in written("latents", without)


def test_graphs_that_pass_are_counted_among_all(written):
    card = written("graphs")
    assert "| distill | 0 | answer | 1 | 1 | 1 | 70.0 % |" in card
    assert "| distill | 0 | think | 1 | 1 | 0 | 70.0 % |" in card


def test_what_a_card_tells_to_load_is_in_the_folder(written, packed, tmp_path):
    for content, repository in packed.items():
        card = written(content)
        package(tmp_path / repository.name, repository.files, card)
        (said,) = re.findall(r'reasondiff.load\(f"\{folder\}/([^"]+)"', card)
        assert (tmp_path / repository.name / said).is_file()
        assert f'snapshot_download("ORGANISATION/{repository.name}"' in card


@pytest.mark.parametrize(("content", "column"), [("latents", "tokens"), ("graphs", "model")])
def test_tables_of_a_data_set_open_as_the_front_matter_says(written, packed, tmp_path, content, column):
    import datasets

    folder = tmp_path / "folder"
    package(folder, packed[content].files, written(content))
    (config,) = DatasetCard.load(folder / "README.md").data.configs
    table = datasets.load_dataset(str(folder), config["config_name"], cache_dir=str(tmp_path / "cache"))["train"]
    assert table.column_names == [column]


def test_no_card_names_this_machine(written, packed, tmp_path):
    for content in packed:
        assert str(tmp_path) not in written(content) and str(Path.home()) not in written(content)
