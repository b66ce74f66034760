"""A slip in the configuration stops the run at once, naming the key, what was expected and what came."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from reasondiff.config import ConfigError, Stream, is_trained, load_study, width_of

CONFIG = Path(__file__).resolve().parents[1] / "config"
STUDIES = [file for file in sorted(CONFIG.glob("*.yaml")) if isinstance(yaml.safe_load(file.read_text()), dict)]
SMOKE = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
DELETE = object()
NO_CIRCUITS = dict.fromkeys(("prompts", "graphs", "motifs", "comparisons"))
LINKS = {"pair": "base-distill", "point": "l1", "min_correlation": 0.5, "tokens": 15000, "random_draws": 1, "seed": 0}


def changed(path, value):
    """The smoke study with the value at a dotted path replaced (or deleted)."""
    study = copy.deepcopy(SMOKE)
    *parents, last = path.split(".")
    section = study
    for parent in parents:
        section = section[parent]
    if value is DELETE:
        del section[last]
    else:
        section[last] = value
    return study


def refusal(path, value):
    """The message with which the study is refused."""
    with pytest.raises(ConfigError) as refused:
        load_study(changed(path, value))
    return str(refused.value)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.name)
def test_the_studies_that_come_with_the_workflow_are_valid(file):
    content = yaml.safe_load(file.read_text())
    assert load_study(content).study == content["study"]


@pytest.mark.parametrize(
    "path",
    [
        "studdy", "split.seeed", "split.shares.trian", "tokenizers.tiny.vocabulry", "models.base.tokns",
        "models.base.architecture.heds", "models.base.mix.fact", "models.rl.iteration", "text.traces.mod",
        "text.traces.sources.plain.document", "pairs.base-distill.model", "banks.main.latnts",
        "transcoders.trainr", "transcoders.points.x2k4.kk", "transcoders.sweep.layer", "gates.transcoders.dead",
        "transcoders.models.base.seed", "banks.main.points.l1.sparsty", "banks.main.points.btk8.kk",
        "evaluation.tokns", "gates.fev", "tracking.knd",
    ],
)  # fmt: skip
def test_a_misspelt_key_is_named_by_its_path_in_the_file(path):
    assert f"- {path}: no such key" in refusal(path, 1)


@pytest.mark.parametrize(
    "path",
    [
        "dtype", "split.shares.train", "tokenizers.tiny.texts", "models.distill.parent", "models.rl.temperature",
        "text.traces.sources.openr1_like.weight", "text.traces.sources.plain.seed", "banks.main.points.btk8.k",
        "banks.main.points.alone0.seeds", "stream.norm_factor",
    ],
)  # fmt: skip
def test_a_missing_key_is_named_by_its_path_in_the_file(path):
    assert f"- {path}: missing" in refusal(path, DELETE)


@pytest.mark.parametrize(
    ("path", "value", "came"),
    [
        ("models.base.tokens", "many", "'many' (str)"),
        ("models.base.tokens", 1.5, "1.5 (float)"),
        ("models.base.tokens", -1, "-1 (int)"),
        ("models.base.learning_rate", [1], "[1] (list)"),
        ("models.base.learning_rate", float("inf"), "inf (float)"),
        ("models.base.weight_decay", float("nan"), "nan (float)"),
        ("tokenizers.tiny.vocabulary", 10, "10 (int)"),
        ("text.traces.mode", "trace", "'trace' (str)"),
        ("text.traces.sources.plain.documents", None, "None (NoneType)"),
        ("banks.main.points.btk8.k", 0, "0 (int)"),
        ("banks.main.layers", 1, "1 (int)"),
        ("banks.main.layers", [], "[] (list)"),
        ("gates.fve", 80, "80 (int)"),
        ("device", "gpu", "'gpu' (str)"),
    ],
)
def test_a_wrong_value_is_an_error_with_key_expectation_and_what_came(path, value, came):
    line = next(line for line in refusal(path, value).splitlines() if path in line)
    assert line.startswith(f"  - {path}: expected: ") and line.endswith(f"came: {came}")


def test_an_item_of_a_list_is_named_by_its_place():
    assert "- banks.main.layers.1: expected:" in refusal("banks.main.layers", [1, "two"])


def test_a_number_that_yaml_reads_as_text_is_mended():
    assert yaml.safe_load("rate: 3e-4") == {"rate": "3e-4"}  # PyYAML's YAML 1.1
    assert load_study(changed("models.rl.learning_rate", "3e-4")).models["rl"].learning_rate == 3e-4


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models.base.stage", "pretrain"), ("tokenizers.tiny.source", "train"),
        ("text.traces.sources.plain.kind", "generated_plain"), ("banks.main.points.l1.method", "batch_topk"),
    ],
)  # fmt: skip
def test_an_unknown_or_missing_kind_is_named_with_the_known_ones(path, expected):
    unknown = refusal(path, "unheard")
    assert f"- {path}: expected: one of" in unknown and expected in unknown and "came: 'unheard'" in unknown
    assert f"- {path}: missing" in refusal(path, DELETE)


def test_several_faults_are_told_at_once():
    study = changed("stream.norm_factor", "large")
    study["gates"]["fev"] = 0.8
    with pytest.raises(ConfigError) as refused:
        load_study(study)
    assert "stream.norm_factor" in str(refused.value) and "gates.fev" in str(refused.value)


# ------------------------------------------------------------------------------------------- names across sections


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("pairs.base-distill.models", ["base", "distil"], "pairs.base-distill.models names 'distil'"),
        ("pairs.base-distill.texts", ["trace"], "pairs.base-distill.texts names 'trace'"),
        ("pairs.base-distill.tokenizer", "tinny", "pairs.base-distill.tokenizer names 'tinny'"),
        ("pairs.base-distill.control", "base-base_continud", "pairs.base-distill.control names"),
        ("banks.main.pairs", ["base-distil"], "banks.main.pairs names 'base-distil'"),
        ("models.distill.parent", "bas", "models.distill.parent names 'bas'"),
        ("models.base.tokenizer", "tini", "models.base.tokenizer names 'tini'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones_and_the_nearest(path, value, said):
    message = refusal(path, value)
    assert said in message and "is not among" in message and "Did you mean" in message


def test_a_name_like_no_other_gets_no_guess():
    assert "Did you mean" not in refusal("pairs.base-distill.models", ["base", "zzzzzz"])


def test_a_chain_that_bites_its_tail_is_refused():
    study = changed("models.distill.parent", "rl")
    with pytest.raises(ConfigError, match="distill -> rl -> distill is a circle"):
        load_study(study)
    with pytest.raises(ConfigError, match="distill -> distill is a circle"):
        load_study(changed("models.distill.parent", "distill"))


def test_a_stage_cannot_continue_a_ready_model():
    ready = {"stage": "local", "folder": "somewhere", "elicitations": ["think"]}
    study = changed("models.ready", ready)
    study["models"]["distill"]["parent"] = "ready"
    with pytest.raises(ConfigError, match="models.distill.parent must be a stage of the chain"):
        load_study(study)


def test_a_layer_that_a_model_lacks_is_refused():
    message = refusal("banks.main.layers", [1, 3])
    assert "banks.main.layers has layer 3, but model 'base' has 3 layers (0 to 2)" in message


def test_a_chain_has_the_layers_of_its_first_model():
    study = load_study(SMOKE)
    assert [width_of(study, name) for name in ("base", "rl")] == [32, 32]


def test_layers_of_a_ready_model_are_not_known_from_the_configuration():
    ready = {"stage": "hub", "repo": "some/model", "revision": "abc", "elicitations": ["think"]}
    study = load_study(changed("models.ready", ready))
    assert width_of(study, "ready") is None and not is_trained(study.models["ready"])


def test_a_point_cannot_have_a_name_that_another_bank_gave_on_the_same_pair():
    message = refusal("banks.control.pairs", ["base-distill"])
    assert "banks.control.points.l1 has the name of a point of bank 'main'" in message


@pytest.mark.parametrize("sides", [[2], [0, 5]])
def test_sides_that_a_pair_lacks_are_refused(sides):
    message = refusal("banks.main.points.alone0.sides", sides)
    assert "banks.main.points.alone0.sides" in message and "base-distill" in message and "2 models" in message


def test_sides_do_not_count_from_the_end():
    assert "- banks.main.points.alone0.sides.0: expected:" in refusal("banks.main.points.alone0.sides", [-1])


def test_k_cannot_exceed_the_number_of_latents():
    assert "banks.main.points.btk8.k (129) exceeds latents (128)" in refusal("banks.main.points.btk8.k", 129)


def test_a_buffer_must_hold_a_batch():
    assert "banks.main: buffer_tokens (100) must hold a batch (512)" in refusal("banks.main.buffer_tokens", 100)


READY = {"folder": "somewhere", "repo": None, "revision": None, "hookpoint": None}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("transcoders.models.distill.layers", [0, 3], "has layer 3, but model 'distill' has 3 layers (0 to 2)"),
        ("transcoders.sweep.layers", [5], "transcoders.sweep.layers has layer 5"),
        ("transcoders.models.base.text", "trace", "Did you mean 'traces'?"),
        ("transcoders.sweep.model", "rl", "which is not among base, distill"),
        ("transcoders.point", "x2k5", "transcoders.point names 'x2k5'"),
        ("transcoders.points.x2k4.k", 65, "transcoders.points.x2k4.k (65) exceeds the 64 latents"),
        ("transcoders.points.ready", {"expansion": 2, "k": 4, "learning_rate": 0.001}, "kept for transcoders trained"),
        ("transcoders.sweep", None, "without a `sweep` the `point` to train must be named"),
        ("transcoders.models.distill.seeds", [0, 7], "'base' is not trained with seed(s) [7]"),
        ("transcoders.models.base.layers", [0, 1], "'base' has no transcoder of layer(s) [2]"),
        ("transcoders.models.base.start_from", "distill", "must itself start from nothing"),
        ("transcoders.trainer", "sparsify", "sparsify's trainer starts from random weights"),
        ("transcoders.training.buffer_tokens", 100, "buffer_tokens (100) must hold a batch"),
        ("transcoders.models.base.ready", READY, "`ready` transcoders are one set"),
        ("transcoders.models.distill.ready", READY, "both must be trained here"),
        ("transcoders.models.distill.ready", {**READY, "repo": "a/b"}, "either `folder` (local) or `repo` (hub)"),
        ("transcoders.models.distill.ready", {**READY, "hookpoint": "layer_3"}, "transcoders.models.distill.ready"),
    ],
)
def test_transcoders_that_cannot_be_trained_or_read_are_refused(path, value, said):
    assert said in refusal(path, value)


def test_a_study_may_have_no_transcoders():
    assert load_study({**changed("transcoders", None), **NO_CIRCUITS}).transcoders is None


def test_a_study_may_take_all_its_transcoders_from_elsewhere_and_then_needs_no_point():
    study = {**copy.deepcopy(SMOKE), **NO_CIRCUITS}
    ready = {**study["transcoders"]["models"]["base"], "seeds": [0], "ready": READY}
    study["transcoders"] |= {"models": {"base": ready}, "points": {}, "sweep": None}
    assert load_study(study).transcoders.trained() == {}


def test_the_shares_of_the_parts_must_sum_to_1():
    assert "split.shares: the shares of the parts must sum to 1, they sum to 1.2" in refusal("split.shares.train", 0.9)


def test_a_packed_row_must_hold_the_longest_document():
    assert "text.traces: context (100) must hold a document of max_tokens (192)" in refusal("text.traces.context", 100)


def test_muon_needs_the_rate_of_the_matrices():
    message = refusal("models.base.learning_rate_matrices", None)
    assert "- models.base: optimizer: muon needs `learning_rate_matrices`" in message


def test_the_results_of_two_studies_do_not_mix():
    assert "results_dir must end in 'smoke'" in refusal("results_dir", "results")
    assert load_study(changed("results_dir", "elsewhere/smoke/")).results_dir == "elsewhere/smoke/"


@pytest.mark.parametrize(
    ("section", "name"), [("models", "my model"), ("pairs", "a/b"), ("banks", "Main"), ("text", "..")]
)
def test_a_name_that_cannot_stand_in_a_path_is_refused(section, name):
    any_value = next(iter(SMOKE[section].values()))
    with pytest.raises(ConfigError, match=f"- {section}.{name}: expected:"):
        load_study({**SMOKE, section: {**SMOKE[section], name: any_value}})


def test_settings_cannot_be_changed_after_they_were_checked():
    settings = Stream.model_validate(SMOKE["stream"])
    with pytest.raises(ValueError, match="frozen"):
        settings.norm_factor = 3.0


def test_a_checked_study_survives_the_way_through_plain_data():
    study = load_study(SMOKE)
    assert load_study(study.model_dump(mode="json")) == study


def test_a_labeller_is_shown_no_more_than_is_collected():
    assert "labels.strongest (9) exceeds examples.strongest (5)" in refusal("labels.strongest", 9)
    assert "labels.per_quantile (3) exceeds examples.per_quantile (2)" in refusal("labels.per_quantile", 3)
    assert "labels.scores.negatives (4) exceeds examples.negatives (3)" in refusal("labels.scores.negatives", 4)


def test_the_sample_of_firings_must_fill_the_quantiles():
    assert "sampled (7) must be at least quantiles x per_quantile (8)" in refusal("examples.sampled", 7)


def test_a_provider_of_labels_is_always_named():
    assert "labels.provider" in refusal("labels.provider", None)
    assert "labels.provider" in refusal("labels.provider", "claude")


def test_concepts_need_generated_text_and_pairs_that_exist():
    assert "Did you mean 'base-distill'" in refusal("concepts.pairs", ["base-distil"])
    plain = {"plain": {"kind": "plain_files", "weight": 1.0, "files": ["a.txt"], "column": None, "rows": None}}
    assert "set `concepts: null`" in refusal("text.traces.sources", plain)


# ------------------------------------------------------------------------------------------------ circuits


@pytest.mark.parametrize(
    "path,value,said",
    [
        ("prompts.elicitations", {"base": "solution"}, "prompts.reasoning names 'distill'"),
        ("prompts.elicitations.distill", "solution", "must be `think`"),
        ("prompts.base", "distill", "nothing could differ"),
        ("prompts.base", "bse", "Did you mean 'base'?"),
        ("prompts", None, "graphs: needs the section `prompts`"),
        ("graphs", None, "comparisons: needs the section `graphs`"),
        ("motifs", None, "comparisons: needs the section `motifs`"),
        ("graphs.prune_nodes", 0.99, "must not exceed stored_share"),
        ("graphs.links", {**LINKS, "tokens": 500}, "greater than or equal to 10000"),
        ("graphs.links", {**LINKS, "point": "btk99"}, "graphs.links.point names 'btk99'"),
        ("graphs.links", {**LINKS, "pair": "base-rl"}, "graphs.links.pair names 'base-rl'"),
        ("motifs.nulls", ["erdos_renyi"], "must hold 'typed'"),
        ("motifs.nulls", ["typed", "random"], "'layer_pair_config'"),
        ("comparisons.published", "haiku", "comparisons.published names 'haiku'"),
    ],
)  # fmt: skip
def test_circuits_that_lack_what_they_need_are_refused(path, value, said):
    assert said in refusal(path, value)


def test_traced_models_must_have_transcoders():
    study = changed("transcoders.models", {"base": SMOKE["transcoders"]["models"]["base"]})
    study["transcoders"]["sweep"]["model"] = "base"
    with pytest.raises(ConfigError, match="must have transcoders"):
        load_study(study)


def test_a_study_may_have_no_circuits_or_no_base():
    assert load_study(changed("prompts.base", None)).prompts.base is None
    assert load_study({**SMOKE, **NO_CIRCUITS}).graphs is None


def test_a_null_is_a_control_pair_of_the_study_and_not_named_as_the_control_is():
    nulls = "pairs.base-distill.nulls"
    assert f"{nulls}.format names 'nowhere'" in refusal(nulls, {"format": "nowhere"})
    assert f"{nulls}.format is pair 'distill-rl', whose role is effect" in refusal(nulls, {"format": "distill-rl"})
    assert "give this null another name" in refusal(nulls, {"training": "base-base_continued"})
