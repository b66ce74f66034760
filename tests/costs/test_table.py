"""What a study costs follows its config, and covers all that the workflow runs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from published import PROMPTS, PUBLISHED, changed, config_of, one_row, rows_of
from running import ROOT

from reasondiff.config import ConfigError, Study, load_study
from reasondiff.costs.jobs import Reckoned
from reasondiff.costs.sizes import known_sizes
from reasondiff.costs.table import COLUMNS, STAGES, TOTAL, UNRECKONED, largest, reckon
from reasondiff.dictionaries.planning import GIB
from reasondiff.labels.spending import bound
from reasondiff.store import read_json, read_table

TOPK = "banks.topk"


# ------------------------------------------------------------------------------------------------ scaling


def test_twice_the_tokens_are_twice_the_reading():
    row = one_row(changed("deepscaler", {}), "train_bank", "topk")
    tokens = config_of("deepscaler")["banks"]["topk"]["tokens"]
    double = one_row(changed("deepscaler", {f"{TOPK}.tokens": 2 * tokens}), "train_bank", "topk")
    assert double["tokens"] - row["tokens"] == row["jobs"] * row["passes"] * tokens
    assert double["gpu_hours"] == pytest.approx(2 * row["gpu_hours"], rel=0.02)  # calibration is read once
    assert double["disk_gb"] == row["disk_gb"] and double["gpu_gib"] == row["gpu_gib"]


def test_two_layers_more_cost_two_layers_of_dictionaries_and_of_jobs_at_sites():
    before, after = changed("deepscaler", {}), changed("deepscaler", {f"{TOPK}.layers": [5, 10, 15, 20, 25]})
    row, more = (one_row(study, "train_bank", "topk") for study in (before, after))
    assert more["disk_gb"] == pytest.approx(row["disk_gb"] * 5 / 3)
    assert row["gpu_hours"] < more["gpu_hours"] < row["gpu_hours"] * 5 / 3  # the models are read as deep as before
    sites = [one_row(study, "evaluate_crosscoders")["jobs"] for study in (before, after)]
    assert sites[1] - sites[0] == 2 * 6  # three pairs, two texts


def test_a_second_seed_doubles_the_jobs_of_a_point():
    points = {"btk100": config_of("deepscaler")["banks"]["halves"]["points"]["btk100"]}
    row = one_row(changed("deepscaler", {}), "train_bank", "halves")
    points["btk100"] |= {"seeds": [0, 1]}
    double = one_row(changed("deepscaler", {"banks.halves.points": points}), "train_bank", "halves")
    assert double["jobs"] == 2 * row["jobs"] and double["gpu_hours"] == pytest.approx(2 * row["gpu_hours"])
    assert double["gpu_hours_each"] == row["gpu_hours_each"]


def test_a_smaller_card_makes_more_passes_and_each_reads_the_text_again():
    large = one_row(changed("r1_interp", {"cost.card.memory_gib": 1000}), "train_transcoders", "distill")
    small = one_row(changed("r1_interp", {"cost.card.memory_gib": 70}), "train_transcoders", "distill")
    assert large["passes"] == 1 < small["passes"]
    assert small["tokens"] - large["tokens"] == (small["passes"] - 1) * 200_000_000
    assert small["gpu_gib"] <= 70 < large["gpu_gib"]
    assert small["disk_gb"] == large["disk_gb"] and small["gpu_hours"] > large["gpu_hours"]


@pytest.mark.parametrize("memory", [66, 83, 117, 139])
def test_a_tenth_of_what_the_models_leave_of_a_card_stays_free(memory):
    row = one_row(changed("r1_interp", {"cost.card.memory_gib": memory}), "train_transcoders", "distill")
    most_beside = 15  # GiB: the model and a pass through it
    assert row["gpu_gib"] <= memory - 0.1 * (memory - most_beside)


def test_memory_that_a_job_may_take_counts_before_the_card_does():
    row = one_row(changed("r1_interp", {"memory_gib": 40}), "train_transcoders", "distill")
    free = one_row(changed("r1_interp", {}), "train_transcoders", "distill")
    assert row["passes"] > free["passes"] and row["gpu_gib"] < free["gpu_gib"]


def test_a_card_twice_as_fast_takes_half_the_hours():
    card = config_of("r1_interp")["cost"]["card"]
    rates = ("bfloat16_tflops", "float32_tflops", "tf32_tflops", "memory_tb_per_second")
    fast = {f"cost.card.{name}": 2 * card[name] for name in rates} | {
        "cost.card.block_milliseconds": card["block_milliseconds"] / 2
    }
    slow, quick = (rows_of(changed("r1_interp", changes))[-1] for changes in ({}, fast))
    assert quick["gpu_hours"] == pytest.approx(slow["gpu_hours"] / 2)


# ------------------------------------------------------------------------------------------------ what is not known


def test_a_model_without_declared_sizes_is_not_known_and_the_row_says_what_to_do():
    study = changed("deepscaler", {"models.rl.size": None})
    rows = rows_of(study)
    (accuracy,) = [row for row in rows if row["rule"] == "measure_accuracy" and math.isnan(row["tokens"])]
    assert accuracy["jobs"] == 1 and math.isnan(accuracy["gpu_hours"])
    assert "models.rl.size" in accuracy["basis"] and "results/deepscaler/models/rl/model.json" in accuracy["basis"]
    assert "WITHOUT" in rows[-1]["basis"] and "train_bank" in rows[-1]["basis"]
    (known,) = [row for row in rows if row["rule"] == "measure_accuracy" and not math.isnan(row["tokens"])]
    assert known["jobs"] == 2  # the others are reckoned all the same


def test_sizes_of_a_model_that_was_located_are_read(finished_smoke, tmp_path, monkeypatch):
    config = config_of("smoke")
    local = {"stage": "local", "folder": "anywhere", "elicitations": ["direct"]}
    for name in config["models"]:
        config["models"][name] = local
    config["tokenizers"] = {"tiny": {"source": "model", "model": "base"}}
    study = load_study(config)
    monkeypatch.chdir(tmp_path)
    assert set(known_sizes(study).values()) == {None}
    monkeypatch.chdir(finished_smoke)
    assert known_sizes(study)["rl"] == known_sizes(changed("smoke", {}))["rl"]


def test_rows_of_a_source_that_are_not_said_are_not_known_and_the_hours_are():
    rows = rows_of(changed("r1_interp", {"cost.source_rows": {}}))
    unknown = {row["rule"]: row for row in rows if math.isnan(row["disk_gb"])}
    assert set(unknown) == {"prepare_text", "tokenize_text", "check_alignment", "check_alignment_of_model"}
    assert "cost.source_rows.mixed" in unknown["tokenize_text"]["basis"]
    assert "host memory without the ids of mixed" in rows[-1]["basis"]
    whole = rows_of(changed("r1_interp", {}))[-1]
    assert rows[-1]["gpu_hours"] == whole["gpu_hours"] and "host memory without" not in whole["basis"]


def test_a_dictionary_that_fits_no_card_is_named():
    row = one_row(changed("r1_interp", {"cost.card.memory_gib": 12}), "train_transcoders")
    assert math.isnan(row["gpu_hours"]) and "alone takes" in row["basis"]


def test_a_job_that_does_not_fit_the_card_is_marked():
    rows = rows_of(changed("r1_interp", {"cost.card.memory_gib": 70}))
    marked = {row["rule"] for row in rows if "MORE THAN THE CARD HOLDS (70 GiB)" in row["basis"]}
    assert marked == {row["rule"] for row in rows if row["gpu_gib"] > 70} - {TOTAL}
    assert "trace_graphs" in marked and "train_transcoders" not in marked


def with_ready_transcoders() -> Study:
    ready = {"folder": "inputs", "repo": None, "revision": None, "hookpoint": None}
    changes = {"transcoders.models.distill.ready": ready, "transcoders.models.distill.start_from": None}
    return changed("r1_interp", changes | {"transcoders.sweep.model": "base"})


def test_transcoders_from_elsewhere_are_not_known():
    rows = {row["rule"]: row for row in rows_of(with_ready_transcoders()) if math.isnan(row["disk_gb"])}
    assert "come from elsewhere" in rows["import_transcoders"]["basis"]


def test_without_a_card_no_hours_are_reckoned_and_the_rest_is():
    for row in rows_of(changed("smoke", {})):
        assert math.isnan(row["gpu_hours"]) and math.isnan(row["gpu_gib"])
        assert row["host_gib"] > 0 and row["disk_gb"] >= 0
    assert "no card" in row["basis"]


def test_costs_name_things_of_the_study():
    for changes, said in (
        ({"cost.source_rows": {"mixde": 3}}, "cost.source_rows"),
        ({"cost.point": "x64k65"}, "cost.point"),
    ):
        with pytest.raises(ConfigError, match=said):
            changed("r1_interp", changes)


# ------------------------------------------------------------------------------------------------ the whole


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_total_is_the_sum_of_its_stages(name):
    *stages, total = rows_of(changed(name, {}))
    assert total["rule"] == TOTAL and list(total) == COLUMNS
    for column in ("jobs", "tokens", "gpu_hours", "disk_gb"):
        known = [row[column] for row in stages if not math.isnan(row[column])]
        assert total[column] == pytest.approx(sum(known))
    assert total["gpu_gib"] == max(row["gpu_gib"] for row in stages if not math.isnan(row["gpu_gib"]))
    assert not any(row["basis"].startswith("not known") for row in stages)


def test_labels_cost_what_their_bound_says_and_together_no_more_than_the_budget():
    study = changed("r1_interp", {})
    paid = one_row(study, "label_latents")
    latents = 28 * 30 + 100 + 28 + 500
    assert paid["dollars"] == 2 * bound(study.labels, latents, 40 + 16 + 1)
    assert rows_of(study)[-1]["dollars"] == min(paid["dollars"], study.labels.anthropic.budget_dollars)
    assert one_row(changed("r1_interp", {"labels.provider": "offline"}), "label_latents")["dollars"] == 0


def test_every_rule_with_a_script_is_reckoned_or_said_not_to_be():
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    asked = set(re.findall(r'(?:memory|runtime)\(\d+, "(\w+)"\)', text))
    studies = [changed(name, {}) for name in ("smoke", *PUBLISHED)]
    reckoned = {rule for study in [*studies, with_ready_transcoders()] for rule in _rules(study)}
    assert asked <= reckoned, "a rule asks for what is reckoned of another name"
    assert reckoned - {"check_alignment_of_model", "count_published_motifs"} <= asked
    assert not set(UNRECKONED) & reckoned


def _rules(study: Study) -> set[str]:
    reckoned = Reckoned(study, known_sizes(study), PROMPTS)
    return {rule for stage in STAGES for rule, _make in stage(reckoned)}


def test_reckoning_loads_neither_torch_nor_transformers():
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import reasondiff.costs.table; "
        "print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ a finished study


def reckoned_smoke(folder: Path) -> list[dict]:
    """The smoke study, taken to choose the point that it chose."""
    point = read_json(folder / "results/smoke/transcoders/choice.json")["point"]
    study = changed("smoke", {"cost.point": point})
    return reckon(study, known_sizes(study), len(list((folder / "results/smoke/graphs/distill/seed0").iterdir())) - 2)


def test_the_jobs_of_a_finished_study_are_those_that_were_reckoned(finished_smoke):
    """Each job has left a log, under the name of its rule."""
    logs = finished_smoke / "logs/smoke"
    ran = Counter(path.relative_to(logs).parts[0].removesuffix(".log") for path in logs.rglob("*.log"))
    others = {"check_alignment_of_model": "check_alignment", "train_transcoder_sweep": "train_transcoders"}
    jobs = Counter()
    for row in reckoned_smoke(finished_smoke)[:-1]:
        jobs[others.get(row["rule"], row["rule"])] += row["jobs"]
    assert {rule: count for rule, count in ran.items() if rule in jobs} == dict(jobs)
    assert set(ran) - set(jobs) <= {*UNRECKONED, "write_manifest", "estimate_cost"}


def test_the_dictionaries_of_a_finished_study_take_the_disk_that_was_reckoned(finished_smoke):
    results, rows = finished_smoke / "results/smoke", reckoned_smoke(finished_smoke)
    for folder, rules in {
        "crosscoders": ("train_bank", "train_untrained"),
        "transcoders": ("train_transcoders", "train_transcoder_sweep"),
        "models": ("train_model",),
    }.items():
        held = sum(path.stat().st_size for path in (results / folder).rglob("*.safetensors"))
        said = sum(row["disk_gb"] for row in rows if row["rule"] in rules) * 1e9
        headers = 3000 * len(list((results / folder).rglob("*.safetensors")))  # cards, larger than tiny weights
        assert said <= held <= said * 1.01 + headers, folder


@pytest.mark.parametrize(
    ("rule", "pattern", "least"),
    [
        ("tokenize_text", "text/*/*/tokens.npz", 0.3),  # every document as long as allowed
        ("prepare_text", "text/*/*.parquet", 0.1),
        ("describe_latents", "crosscoders/**/latents.tsv", 0.5),
        ("collect_examples", "crosscoders/**/{examples,firing}.parquet", 0.3),
        ("collect_transcoder_examples", "transcoders/**/{examples,firing}.parquet", 0.3),
        ("measure_logit_effects", "crosscoders/**/logits.parquet", 0.3),
    ],
)
def test_other_files_take_no_more_than_was_reckoned_and_not_much_less(finished_smoke, rule, pattern, least):
    names = re.sub(r"\{(.*)\}", lambda found: "{}", pattern)
    some = re.search(r"\{(.*)\}", pattern)
    patterns = [names.format(one) for one in some.group(1).split(",")] if some else [pattern]
    results = finished_smoke / "results/smoke"
    held = sum(path.stat().st_size for one in patterns for path in results.glob(one))
    said = sum(row["disk_gb"] for row in reckoned_smoke(finished_smoke) if row["rule"] == rule) * 1e9
    assert least * said < held < 1.3 * said


def test_a_finished_text_has_most_of_the_documents_that_were_reckoned_and_no_more(finished_smoke):
    study = changed("smoke", {})
    said = Reckoned(study, known_sizes(study), PROMPTS).documents("traces")
    assert 0.9 * said < len(read_table(finished_smoke / "results/smoke/text/traces/documents.parquet")) <= said


# ------------------------------------------------------------------------------------------------ what jobs ask for


def test_small_studies_ask_for_no_more_than_their_rules_name():
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = {rule: int(mb) for mb, rule in re.findall(r'memory\((\d+), "(\w+)"\)', text)}
    for name in ("smoke", "config"):
        rows = rows_of(changed(name, {}))
        for rule, mb in named.items():
            assert largest(rows, rule, "host_gib") * GIB / 1e6 <= mb, (name, rule)
            assert largest(rows, rule, "gpu_hours_each") == 0


def test_a_published_study_asks_for_the_weights_that_it_loads():
    rows = rows_of(changed("deepscaler", {}))
    weights = 2 * 1.7e9 / GIB  # of one untied model, two bytes each
    for rule in ("measure_divergence", "train_bank", "evaluate_crosscoders"):
        assert largest(rows, rule, "host_gib") > weights + 4
    assert largest(rows, "no such rule", "host_gib") == 0
