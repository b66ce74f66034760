"""What other tools read of our examples is what we have: nothing lost, added, rounded or out of place."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_examples import planted_rows

from reasondiff.latents import example_table, legacy, neuronpedia, records
from reasondiff.latents.example_table import FIRING, read_examples, table_of, write_examples
from reasondiff.latents.export import export_examples, names_of
from reasondiff.latents.neuronpedia import Names, bars, read_lines, slug
from reasondiff.latents.records import Sources, plain, read_layers, read_records
from reasondiff.store import ArtefactError, read_json, write_json, write_table

TRIGGERS = ["seven", "Wait", "glass", "river"]
EDGES = [0.5, 1.0, 2.0]
NAMES = Names("tiny-base-distill-btk24-seed0", "base-distill")
CARD = {"settings": {"quantiles": 2}}


def firing_rows(layer, live, dead=()):
    return [
        {
            "layer": layer, "latent": latent, "firings": 0 if latent in dead else 10 + latent,
            "rate": 0.0 if latent in dead else (10 + latent) / 1000, "mean_activation": np.float32(0.7),
            "max_activation": np.float32(2.1 + latent),
            "histogram": [0, 0, 0, 0] if latent in dead else [0, 3, 5 + latent, 2],
            "neighbour": -1 if latent in dead else (latent + 1) % 4, "neighbour_cosine": np.float32(0.3),
        }
        for latent in sorted([*live, *dead])
    ]  # fmt: skip


def logit_rows(layer, live, models):
    return [
        {
            "layer": layer, "latent": latent, "model": model,
            "raised": [f"{model} up {latent}", '"\\'], "raised_by": np.array([0.3 + latent, 0.1], np.float32),
            "lowered": [f"{model} down", " \u2028"], "lowered_by": np.array([-0.7, -0.2], np.float32),
        }
        for latent in live
        for model in models
    ]  # fmt: skip


def write_sources(folder, rows, firing, logits=None, labels=None, card=CARD) -> Sources:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.parquet" for name in ("examples", "firing")}
    write_examples(paths["examples"], table_of(rows), card)
    write_table(paths["firing"], pd.DataFrame(firing), {"histogram_edges": EDGES, "tokens": 1000})
    if logits is not None:
        paths["logits"] = folder / "logits.parquet"
        write_table(paths["logits"], pd.DataFrame(logits), {})
    if labels is not None:
        paths["labels"] = folder / "labels.json"
        write_json(paths["labels"], labels)
    return Sources(**paths)


def label(layer, latent, status="labelled", **changes):
    row = {"layer": layer, "latent": latent, "why": "page", "tag": "shared", "status": status, "reason": None}
    return {**row, "label": f"the word {latent}", "explanation": "It fires on it.", "pattern": None, **changes}


def awkward(rows):
    """The rows with tokens that JSON, SQLite and line-based formats are known to stumble over."""
    odd = ['"', "\\", "\n", "\r", "\u2028", "\ufffd", "'; DROP TABLE data_table; --", "é", "\U0001f600", ""]
    for number, row in enumerate(rows):
        row["tokens"] = [odd[number % len(odd)], *row["tokens"][1:]]
    return rows


@pytest.fixture(scope="module")
def crosscoder(tmp_path_factory):
    """Four live latents, 4 a dead one, of a pair, with logit effects; 0 has a label, the label of 1 failed."""
    labels = {
        "provider": "offline", "model": None,
        "latents": [label(3, 0), label(3, 1, status="failed", label=None, explanation=None, reason="cut off")],
    }  # fmt: skip
    return write_sources(
        tmp_path_factory.mktemp("crosscoder"),
        awkward(planted_rows(TRIGGERS)),
        firing_rows(3, range(4), dead=[4]),
        logit_rows(3, range(4), ["base", "Distill_2"]),
        labels,
    )


@pytest.fixture(scope="module")
def transcoders(tmp_path_factory):
    """Layers 1 (latents 0 and 1) and 2 (latent 0; 1 is dead) of one model."""
    rows = planted_rows(TRIGGERS[:2], layer=1) + planted_rows(TRIGGERS[2:3], layer=2)
    firing = firing_rows(1, range(2)) + firing_rows(2, [0], dead=[1])
    return write_sources(
        tmp_path_factory.mktemp("transcoders"), rows, firing, logit_rows(1, range(2), ["m"]) + logit_rows(2, [0], ["m"])
    )


def export(sources, folder, kind="crosscoders", names=NAMES):
    count = export_examples(sources, kind, names, folder / "neuronpedia", folder / "legacy", {"study": "tiny"})
    return count, folder / "neuronpedia", folder / "legacy"


def read_table_of(folder: Path, table: str) -> list[dict]:
    files = sorted(
        (folder / table).glob("batch-*.jsonl.gz"), key=lambda path: int(path.name.split("-")[1].split(".")[0])
    )
    return [row for path in files for row in read_lines(path)]


def shown(examples: pd.DataFrame, layer: int, latent: int) -> pd.DataFrame:
    chosen = (examples["layer"] == layer) & (examples["latent"] == latent) & examples["kind"].isin(FIRING)
    return examples[chosen]


def same_float32(found, wanted) -> bool:
    return np.array_equal(np.asarray(found, np.float32), np.asarray(wanted, np.float32))


# ------------------------------------------------------------------------------------------------ Neuronpedia


@pytest.mark.parametrize("per_file", [256, 1, 3])
def test_neuronpedias_activations_are_the_examples(crosscoder, tmp_path, monkeypatch, per_file):
    monkeypatch.setattr(neuronpedia, "LATENTS_PER_FILE", per_file)
    _, folder, _ = export(crosscoder, tmp_path)
    examples = read_examples(crosscoder.examples)
    assert sorted(path.name for path in folder.iterdir()) == ["base", "card.json", "distill-2"]
    for model in ("base", "distill-2"):
        source = folder / model / "3-tiny-base-distill-btk24-seed0"
        assert len(list((source / "features").iterdir())) == -(-4 // per_file)
        features = read_table_of(source, "features")
        assert [row["index"] for row in features] == ["0", "1", "2", "3"]
        flat = [row for feature in features for row in feature["activations"]]
        assert read_table_of(source, "activations") == flat
        for latent, feature in enumerate(features):
            expected = shown(examples, 3, latent)
            assert len(feature["activations"]) == len(expected) == 24
            for found, (_, row) in zip(feature["activations"], expected.iterrows(), strict=True):
                assert found["tokens"] == row["tokens"]
                assert same_float32(found["values"], row["activations"])
                assert found["tokens"][found["qualifyingTokenIndex"]] == row["tokens"][row["position"] - row["start"]]
                assert found["maxValue"] == max(found["values"]) == found["values"][found["maxValueTokenIndex"]]
                assert found["minValue"] == 0.0
                assert (found["modelId"], found["layer"], found["index"]) == (model, source.name, str(latent))
    assert len({row["id"] for row in flat}) == len(flat)


def test_a_feature_says_how_its_latent_fires_and_what_it_raises_in_that_model(crosscoder, tmp_path):
    _, folder, _ = export(crosscoder, tmp_path)
    for model, name in (("base", "base"), ("distill-2", "Distill_2")):
        feature = read_table_of(folder / model / NAMES.source(3), "features")[2]
        assert feature["pos_str"] == [f"{name} up 2", '"\\'] and feature["pos_values"] == [2.3, 0.1]
        assert feature["neg_str"] == [f"{name} down", " \u2028"] and feature["neg_values"] == [-0.7, -0.2]
        assert feature["maxActApprox"] == 4.1 and feature["frac_nonzero"] == 0.012
        # bins 0-0.5, 0.5-1, 1-2, above 2; the first is empty
        assert feature["freq_hist_data_bar_heights"] == [3, 7, 2]
        assert feature["freq_hist_data_bar_values"] == [0.75, 1.5, 2.0]
        assert feature["topkCosSimIndices"] == [3] and feature["topkCosSimValues"] == [0.3]


def test_quantiles_are_bins_and_the_strongest_are_of_none(tmp_path):
    rows = planted_rows(TRIGGERS[:1])
    for number, row in enumerate(row for row in rows if row["kind"] == "quantile"):
        # parts `choose` and `score`, quantiles 0, 1, 0, 1, 0, 1 in each: 1.0 1.1 ... 1.5 and 1.6 ... 2.1
        row["value"] = row["activations"][row["position"] - row["start"]] = 1 + number / 10
    _, folder, _ = export(write_sources(tmp_path / "in", rows, firing_rows(3, [0])), tmp_path)
    (feature,) = read_table_of(folder / "base-distill" / NAMES.source(3), "features")
    rows = feature["activations"]
    bins = {(row["dataSource"], row["binMin"], row["binMax"], row["binContains"]) for row in rows}
    assert {bin for bin in bins if bin[3] > 0} == {
        ("choose", 1.0, 1.4, 0.5), ("choose", 1.1, 1.5, 0.5), ("score", 1.6, 2.0, 0.5), ("score", 1.7, 2.1, 0.5),
    }  # fmt: skip
    top = [row for row in rows if row["binContains"] == -1]
    assert len(top) == 12 and all(row["binMin"] == -1 and row["binMax"] == row["maxValue"] for row in top)


def test_every_line_of_a_file_has_the_columns_of_its_first(crosscoder, transcoders, tmp_path):
    """An importer takes the columns from the first line."""
    for name, sources, kind in (("c", crosscoder, "crosscoders"), ("t", transcoders, "transcoders")):
        _, folder, _ = export(sources, tmp_path / name, kind)
        files = list(folder.rglob("*.jsonl.gz"))
        assert files
        for path in files:
            rows = list(read_lines(path))
            assert rows and all(list(row) == list(rows[0]) for row in rows)


def test_only_labels_that_were_given_are_explanations_and_say_who_gave_them(crosscoder, tmp_path):
    _, folder, _ = export(crosscoder, tmp_path)
    source = folder / "base" / NAMES.source(3)
    (row,) = read_table_of(source, "explanations")
    assert (row["index"], row["description"]) == ("0", "the word 0")
    assert row["notes"] == "offline provider (a pattern of the contexts): It fires on it."
    features = read_table_of(source, "features")
    assert [len(feature["explanations"]) for feature in features] == [1, 0, 0, 0]


def test_without_logit_effects_the_dictionary_is_of_its_pair(crosscoder, tmp_path):
    _, folder, _ = export(Sources(crosscoder.examples, crosscoder.firing), tmp_path)
    (feature, *_) = read_table_of(folder / "base-distill" / NAMES.source(3), "features")
    assert feature["pos_str"] == feature["neg_values"] == [] and len(feature["activations"]) == 24


def test_a_model_beside_itself_gets_two_names(tmp_path):
    rows, firing = planted_rows(TRIGGERS[:1]), firing_rows(3, [0])
    sources = write_sources(tmp_path / "in", rows, firing, logit_rows(3, [0], ["base", "base"]))
    _, folder, _ = export(sources, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"base", "base-1", "card.json"}


def test_layers_of_transcoders_are_sources(transcoders, tmp_path):
    _, folder, _ = export(transcoders, tmp_path, "transcoders")
    assert {path.name for path in (folder / "m").iterdir()} == {NAMES.source(1), NAMES.source(2)}
    assert [row["index"] for row in read_table_of(folder / "m" / NAMES.source(1), "features")] == ["0", "1"]
    assert [row["index"] for row in read_table_of(folder / "m" / NAMES.source(2), "features")] == ["0"]


def test_a_nul_is_shown_as_a_space_and_what_looks_like_one_stays(tmp_path):
    rows = planted_rows(TRIGGERS[:1])
    for row in rows:
        row["tokens"] = ["\0", "\\u0000", *row["tokens"][2:]]
    _, folder, _ = export(write_sources(tmp_path / "in", rows, firing_rows(3, [0])), tmp_path)
    (feature,) = read_table_of(folder / "base-distill" / NAMES.source(3), "features")
    assert {tuple(row["tokens"][:2]) for row in feature["activations"]} == {(" ", "\\u0000")}


@pytest.mark.parametrize(
    ("histogram", "heights", "values"),
    [
        ([1, 0, 0, 0], [1], [0.25]),
        ([0, 0, 0, 4], [4], [2.0]),
        ([2, 0, 3, 0], [2, 0, 3], [0.25, 0.75, 1.5]),
        ([0, 0, 0, 0], [], []),
    ],
)
def test_bars_are_the_middles_of_bins_between_the_first_and_the_last_filled_one(histogram, heights, values):
    assert bars(histogram, EDGES) == (heights, values)


def test_edges_that_do_not_fit_the_bins_are_refused():
    with pytest.raises(ArtefactError, match="4 bins has 3 edges.*has 4"):
        bars([1, 2, 3, 4], [*EDGES, 4.0])


# ------------------------------------------------------------------------------------------------ the studies before


def strongest_of(sources, layer, latent):
    rows = shown(read_examples(sources.examples, kinds=["strongest"]), layer, latent)
    return rows.sort_values("value", ascending=False, kind="stable")


def test_the_dict_of_the_crosscoder_study_is_the_strongest_examples_in_falling_order(crosscoder, tmp_path):
    _, _, folder = export(crosscoder, tmp_path)
    read = read_json(folder / legacy.EXAMPLES)
    assert list(read) == ["0", "1", "2", "3"]
    for latent, rows in read.items():
        expected = strongest_of(crosscoder, 3, int(latent))
        assert len(rows) == 12
        assert [value for value, _, _ in rows] == sorted([value for value, _, _ in rows], reverse=True)
        for (largest, tokens, activations), (_, row) in zip(rows, expected.iterrows(), strict=True):
            assert largest == max(activations) and tokens == row["tokens"]
            assert same_float32(activations, row["activations"])


def test_the_database_of_the_crosscoder_study_says_the_same(crosscoder, tmp_path):
    _, _, folder = export(crosscoder, tmp_path)
    with sqlite3.connect(f"file:{folder / legacy.DATABASE}?mode=ro", uri=True) as database:
        columns = database.execute("PRAGMA table_info(data_table)").fetchall()
        assert [(name, kind, key) for _, name, kind, _, _, key in columns] == [
            ("key", "INTEGER", 1),
            ("examples", "TEXT", 0),
        ]
        rows = database.execute("SELECT key, examples, typeof(key) FROM data_table ORDER BY key").fetchall()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {kind for _, _, kind in rows} == {"integer"}
    assert {str(key): json.loads(text) for key, text, _ in rows} == read_json(folder / legacy.EXAMPLES)


def test_the_layer_files_of_the_circuits_study(transcoders, tmp_path):
    _, _, folder = export(transcoders, tmp_path, "transcoders")
    assert {path.name for path in folder.iterdir()} == {
        "activations_layer1.json",
        "activations_layer2.json",
        "card.json",
    }
    for layer, live in ((1, ["0", "1"]), (2, ["0"])):
        read = read_json(folder / f"activations_layer{layer}.json")
        features = read.pop("features")
        assert read == {"layer": layer, "total_tokens": 1000, "n_features": 2, "n_active_features": len(live)}
        assert list(features) == live
        for latent, found in features.items():
            examples = found.pop("top_examples")
            number = int(latent)
            assert found == {
                "activation_frequency": (10 + number) / 1000,
                "max_activation": pytest.approx(2.1 + number),
                "activation_count": 10 + number,
            }
            expected = strongest_of(transcoders, layer, number)
            assert [row["context"] for row in examples] == ["".join(tokens) for tokens in expected["tokens"]]
            assert same_float32([row["activation"] for row in examples], expected["value"])
            assert [row["token_offset"] for row in examples] == expected["position"].tolist()


def test_layers_that_read_different_numbers_of_tokens_say_their_own(tmp_path):
    rows = planted_rows(TRIGGERS[:1], layer=1) + planted_rows(TRIGGERS[:1], layer=2)
    sources = write_sources(tmp_path, rows, firing_rows(1, [0]) + firing_rows(2, [0], dead=[1]))
    card = {"histogram_edges": EDGES, "tokens": 900, "layers": {"tokens": {"1": 1000, "2": 900}}}
    write_table(sources.firing, pd.DataFrame(firing_rows(1, [0]) + firing_rows(2, [0], dead=[1])), card)
    found = [(layer.layer, layer.latents, layer.live, layer.tokens) for layer in read_layers(sources)]
    assert found == [(1, 1, 1, 1000), (2, 2, 1, 900)]


# ------------------------------------------------------------------------------------------------ whole, equal, light


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_input_gives_equal_bytes(crosscoder, transcoders, tmp_path):
    for sources, kind in ((crosscoder, "crosscoders"), (transcoders, "transcoders")):
        for run in ("first", "second"):
            export(sources, tmp_path / kind / run, kind)
        first, second = contents(tmp_path / kind / "first"), contents(tmp_path / kind / "second")
        assert first == second and len(first) > 5
        packed = [whole for name, whole in first.items() if name.endswith(".gz")]
        assert {whole[3:8] for whole in packed} == {bytes(5)}  # of the header: no flags (no name), no time of writing


def test_no_live_latent_is_valid(tmp_path):
    firing = firing_rows(3, [], dead=[0, 1])
    sources = write_sources(tmp_path / "in", [], firing, pd.DataFrame(columns=["layer", "latent", "model", "raised",
        "raised_by", "lowered", "lowered_by"]))  # fmt: skip
    for kind in ("crosscoders", "transcoders"):
        count, folder, old = export(sources, tmp_path / kind, kind)
        assert count == 0 and set(contents(folder)) == {"card.json"}
    assert read_json(old / "activations_layer3.json")["features"] == {}
    with sqlite3.connect(tmp_path / "crosscoders" / "legacy" / legacy.DATABASE) as database:
        assert database.execute("SELECT count(*) FROM data_table").fetchone() == (0,)
    assert read_json(tmp_path / "crosscoders" / "legacy" / legacy.EXAMPLES) == {}


def test_an_export_that_fails_leaves_the_one_before_whole(crosscoder, tmp_path, monkeypatch):
    export(crosscoder, tmp_path)
    before = contents(tmp_path)
    written = []

    def breaks(record):
        written.append(record)
        if len(written) == 3:
            raise OSError("the disk is gone")
        return [(1.0, ["a"], [1.0])]

    monkeypatch.setattr(legacy, "tuples", breaks)
    with pytest.raises(OSError, match="gone"):
        export(crosscoder, tmp_path)
    assert contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_export_takes_the_place_of_the_one_before(crosscoder, transcoders, tmp_path):
    _, folder, old = export(crosscoder, tmp_path)
    export(transcoders, tmp_path, "transcoders")
    assert {path.name for path in folder.iterdir()} == {"m", "card.json"}
    assert not (old / legacy.DATABASE).exists()


def test_the_card_says_what_was_exported(crosscoder, tmp_path):
    _, folder, old = export(crosscoder, tmp_path)
    card = read_json(folder / "card.json")["card"]
    assert card["study"] == "tiny" and set(card) == {"study", "examples", "firing", "logits", "labels"}
    assert read_json(old / "card.json")["card"] == card


def test_latents_come_in_pieces_however_many_there_are(tmp_path, monkeypatch):
    """At any time at most two pieces of a file and the rows of one latent are held."""
    monkeypatch.setattr(records, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(example_table, "ROWS_PER_GROUP", 50)  # each with another dictionary of tokens
    sizes = []
    original = records.pq.ParquetFile.iter_batches

    def counted(self, **how):
        for batch in original(self, **how):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(records.pq.ParquetFile, "iter_batches", counted)
    words = [f"word{number}" for number in range(30)]  # no two latents share one
    firing = firing_rows(3, range(30), dead=range(30, 40))
    sources = write_sources(tmp_path, planted_rows(words, per_kind=2), firing, logit_rows(3, range(30), ["a", "b"]))
    found = list(read_records(sources))
    assert max(sizes) == 7 and len(sizes) > 50
    assert [record.latent for record in found] == list(range(30))
    whole = read_examples(sources.examples, kinds=FIRING)
    for record in found:
        assert [row["tokens"] for row in record.examples] == shown(whole, 3, record.latent)["tokens"].tolist()
        assert [row["model"] for row in record.logits] == ["a", "b"]


def test_few_digits_give_the_same_float32_again():
    values = np.random.default_rng(0).lognormal(0, 8, 3000).astype(np.float32)
    values = np.concatenate([values, -values, [0.0, -0.0, np.float32(1e-45), np.float32(3.4e38)]]).astype(np.float32)
    assert np.array_equal(np.asarray(plain(values.tolist()), np.float32), values)
    assert plain([float(np.float32(0.1))]) == [0.1]
    assert str(plain([-0.0])) == "[0.0]"


# ------------------------------------------------------------------------------------------------ refusals


def broken(tmp_path, rows=None, firing=None, logits=None, **changes):
    rows = planted_rows(TRIGGERS[:3]) if rows is None else rows
    firing = firing_rows(3, range(3)) if firing is None else firing
    return write_sources(tmp_path / "in", rows, firing, logits, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"firing": firing_rows(3, range(2))}, "rows of latent 2 of layer 3, which the table of firings lacks"),
        ({"firing": firing_rows(3, [0, 2], dead=[1])}, "expected latent 2 of layer 3, .* came to latent 1"),
        ({"firing": firing_rows(3, range(4))}, "expected latent 3 of layer 3, .* came to its end"),
        ({"firing": firing_rows(2, range(3))}, "expected latent 0 of layer 2.*came to latent 0 of layer 3"),
        ({"logits": logit_rows(3, [0, 2], ["m"])}, "expected latent 1 of layer 3.*came to latent 2"),
        ({"rows": [], "firing": firing_rows(3, [], dead=range(3))[::-1]}, "not ordered by layer and latent"),
        ({"firing": firing_rows(3, [0, 0, 1, 2])}, "2 rows of latent 0 of layer 3"),
        ({"rows": planted_rows(TRIGGERS[:3])[::-1]}, "different dictionaries|not ordered"),
        ({"card": {}}, "settings.quantiles"),
    ],
)  # fmt: skip
def test_files_of_different_dictionaries_are_refused_and_nothing_is_left(tmp_path, changes, message):
    sources = broken(tmp_path, **changes)
    with pytest.raises(ArtefactError, match=message):
        export(sources, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_missing_or_truncated_file_is_named(crosscoder, tmp_path):
    with pytest.raises(ArtefactError, match="gone.parquet is missing"):
        export(Sources(tmp_path / "gone.parquet", crosscoder.firing), tmp_path)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(Path(crosscoder.examples).read_bytes()[:-200])
    with pytest.raises(ArtefactError, match="cut.parquet cannot be read"):
        export(Sources(cut, crosscoder.firing), tmp_path)
    with pytest.raises(ArtefactError, match="firing.parquet lacks the column.*tokens"):
        write_table(tmp_path / "firing.parquet", pd.DataFrame(firing_rows(3, range(4))), CARD)
        export(Sources(tmp_path / "firing.parquet", crosscoder.firing), tmp_path)


def test_two_layers_are_no_crosscoder_and_a_third_kind_is_none(transcoders, tmp_path):
    with pytest.raises(ArtefactError, match="2 layers"):
        export(transcoders, tmp_path)
    with pytest.raises(ValueError, match="'models'"):
        export(transcoders, tmp_path, "models")


# ------------------------------------------------------------------------------------------------ names, dependencies


def test_names_follow_from_the_place_of_a_dictionary():
    kind, names = names_of("default", "crosscoders/base-distill/traces/layer15/btk24/seed0")
    assert kind == "crosscoders" and names == Names("default-base-distill-traces-btk24-seed0", "base-distill")
    assert names.source(15) == "15-default-base-distill-traces-btk24-seed0"
    kind, names = names_of("My Study", "transcoders/distill/traces/x8k16/seed1")
    assert kind == "transcoders" and names.source(2) == "2-my-study-distill-traces-x8k16-seed1"
    assert slug("DeepSeek-R1_Distill (1.5B)") == "deepseek-r1-distill-1-5b"


def test_exports_need_no_torch():
    code = "import sys; import reasondiff.latents.export; assert not {'torch', 'transformers'} & set(sys.modules)"
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(scripts), "PATH": ""})
