"""Does the workflow keep its promises: from nothing to the page, once, and again only what changed?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fake_anthropic import FakeAnthropic
from running import ROOT, copy_study, said, snakemake

import reasondiff
from reasondiff.graphs.graph import FEATURE, read_graph
from reasondiff.manifest import verify
from reasondiff.store import read_table

CONFIGS = sorted(path.name for path in (ROOT / "config").glob("*.yaml") if "study:" in path.read_text())


def rules_to_run(run: subprocess.CompletedProcess) -> dict[str, int]:
    """{rule: jobs} of a dry run's table."""
    assert run.returncode == 0, said(run)
    found = re.findall(r"^([a-z]\w*) +(\d+)$", said(run), flags=re.MULTILINE)
    return {name: int(count) for name, count in found if name not in ("total", "all")}


@pytest.fixture(scope="session")
def smoke(finished_smoke, tmp_path_factory) -> Path:
    """A copy of the finished smoke study for tests that leave it as it is."""
    return copy_study(finished_smoke, tmp_path_factory.mktemp("workflow"))


@pytest.fixture
def own_smoke(finished_smoke, tmp_path) -> Path:
    """A copy of the finished smoke study that the test may change."""
    return copy_study(finished_smoke, tmp_path)


PROMPTS = [prompt["id"] for prompt in yaml.safe_load((ROOT / "config/prompts_smoke.yaml").read_text())]
SMOKE = ("--configfile", "config/smoke.yaml", "--cores", "2")


@pytest.mark.parametrize("config", CONFIGS)
def test_every_study_has_a_plan(config):
    planned = rules_to_run(snakemake("--dry-run", "--cores", "2", "--configfile", f"config/{config}", folder=ROOT))
    assert "write_report" in planned or planned == {}, "a study is for its page"


def test_the_smoke_study_makes_its_page(smoke):
    page = (smoke / "results/smoke/report.html").read_text()
    assert "<html" in page and "A few seconds of training" in page


def test_every_artefact_has_a_card_and_a_run_file(smoke):
    sys.path.insert(0, str(ROOT / "scripts"))
    from reasondiff.store import read_card

    results = smoke / "results/smoke"
    artefacts = [p for p in results.rglob("*") if p.suffix in (".tsv", ".parquet", ".npz")]
    artefacts += [p for p in results.rglob("*.safetensors") if "models" not in p.parts]
    artefacts += [*results.rglob("alignment.json"), *results.rglob("model.json"), *results.rglob("choice.json")]
    assert len(artefacts) > 30
    for path in artefacts:
        assert read_card(path), f"{path} has no card"
        facts = json.loads(Path(f"{path}.run.json").read_text())
        assert facts["seconds"] >= 0 and facts["versions"]["numpy"]


def test_a_second_run_has_nothing_to_do(smoke):
    assert "Nothing to be done" in said(snakemake("--dry-run", *SMOKE, folder=smoke))


def test_a_comment_in_the_library_runs_nothing_again(own_smoke):
    edited = own_smoke / "scripts/reasondiff/dictionaries/trainer.py"
    edited.write_text(edited.read_text().replace("from __future__", "# a remark\nfrom __future__", 1))
    assert "Nothing to be done" in said(snakemake("--dry-run", *SMOKE, folder=own_smoke))


def test_an_edited_function_runs_its_dependents_and_nothing_above(own_smoke):
    edited = own_smoke / "scripts/reasondiff/latents/ownership.py"
    edited.write_text(edited.read_text().replace("return ((first - last)", "return (1 * (first - last)", 1))
    planned = rules_to_run(snakemake("--dry-run", *SMOKE, folder=own_smoke))
    assert any(rule.startswith("describe_latents") for rule in planned)
    above = ("train_", "evaluate_", "prepare_", "tokenize_", "measure_divergence", "measure_accuracy", "collect_")
    assert not any(rule.startswith(above) for rule in planned)


def changed_config(folder: Path, change) -> tuple[str, ...]:
    """Arguments that run the smoke study with a change in its config."""
    config = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    change(config)
    (folder / "config/changed.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return ("--configfile", "config/changed.yaml", "--cores", "2")


def test_a_changed_sweep_point_alone_is_trained(own_smoke):
    changed_config(own_smoke, lambda config: config["banks"]["main"]["points"]["l1"].update(sparsity=0.2))
    before = _weights(own_smoke)
    until = ("--until", "train_bank_main_seed0")
    run = snakemake("--configfile", "config/changed.yaml", "--cores", "2", *until, folder=own_smoke)
    assert run.returncode == 0, said(run)[-3000:]
    after = _weights(own_smoke)
    changed = {path for path in before if before[path] != after[path]}
    assert changed and all("/l1/" in path for path in changed)
    back = snakemake(*SMOKE, *until, folder=own_smoke)
    assert back.returncode == 0, said(back)[-3000:]
    assert _weights(own_smoke) == before, "the same settings give the same bytes again"


def _weights(folder: Path, kind: str = "crosscoders") -> dict[str, bytes]:
    found = (folder / "results/smoke" / kind).rglob("*.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def judge_sweep(folder: Path, study: tuple[str, ...]) -> dict:
    """The choice after the sweep was trained and judged with a changed config."""
    run = snakemake(*study, "--until", "choose_transcoder", folder=folder)
    assert run.returncode == 0, said(run)[-3000:]
    return json.loads((folder / "results/smoke/transcoders/choice.json").read_text())


def test_the_sweep_leads_to_a_choice_and_the_choice_to_transcoders_of_all_layers(smoke):
    """The sweep is of `distill` on layers 0 and 2; the chosen point's sets are of all layers and of both models."""
    choice = json.loads((smoke / "results/smoke/transcoders/choice.json").read_text())
    assert choice["how"] in ("sweep", "best of the unqualified") and choice["reason"]
    found = {path.split("/transcoders/")[1] for path in _weights(smoke, "transcoders")}
    sweep = {f"distill/traces/sweep/{point}/seed0/layers.{layer}.mlp" for point in ("x2k4", "x4k8") for layer in (0, 2)}
    sets = {
        f"{model}/traces/{choice['point']}/seed{seed}/layers.{layer}.mlp"
        for model, seed in (("base", 0), ("base", 1), ("distill", 0))
        for layer in range(3)
    }
    assert found == {f"{folder}/sae.safetensors" for folder in sweep | sets}


def test_transcoders_of_distill_begin_as_those_of_base(smoke):
    """Latents of one index point the same way, more than those of another seed do."""
    from reasondiff.dictionaries.transcoder import load_transcoder

    point = json.loads((smoke / "results/smoke/transcoders/choice.json").read_text())["point"]
    of = lambda name: smoke / f"results/smoke/transcoders/{name}/layers.1.mlp"  # noqa: E731
    base, other, distill = (
        load_transcoder(of(name)).encoder
        for name in (f"base/traces/{point}/seed0", f"base/traces/{point}/seed1", f"distill/traces/{point}/seed0")
    )
    cosine = lambda a, b: torch.nn.functional.cosine_similarity(a, b).median()  # noqa: E731
    assert cosine(base, distill) > 0.8 and cosine(base, other).abs() < 0.3


def test_a_changed_point_of_the_transcoders_alone_is_trained_and_the_same_choice_runs_nothing_again(own_smoke):
    chosen = json.loads((own_smoke / "results/smoke/transcoders/choice.json").read_text())["point"]
    assert chosen == "x4k8", "the test changes the other point"
    before = _weights(own_smoke, "transcoders")
    study = changed_config(own_smoke, lambda config: config["transcoders"]["points"]["x2k4"].update(k=3))
    assert judge_sweep(own_smoke, study)["point"] == chosen
    after = _weights(own_smoke, "transcoders")
    changed = {path for path in before if before[path] != after[path]}
    assert changed and all("/sweep/x2k4/" in path for path in changed)
    planned = rules_to_run(snakemake("--dry-run", *study, folder=own_smoke))
    assert "write_report" in planned  # it shows the sweep
    assert not [rule for rule in planned if rule.startswith(("train_", "evaluate_", "compare_"))]


def test_another_choice_trains_all_layers_anew(own_smoke):
    study = changed_config(own_smoke, lambda config: config["transcoders"].update(point="x2k4"))
    choice = judge_sweep(own_smoke, study)
    assert (choice["point"], choice["how"]) == ("x2k4", "config")
    planned = rules_to_run(snakemake("--dry-run", *study, folder=own_smoke))
    assert planned["train_transcoders_base"] == 2 and planned["train_transcoders_distill"] == 1
    assert planned["evaluate_transcoders"] == 3 and "train_transcoder_sweep" not in planned
    assert not [rule for rule in planned if rule.startswith(("train_bank", "train_model", "evaluate_crosscoders"))]


def test_a_sweep_without_a_point_under_the_limits_stops_a_study_that_says_so(own_smoke):
    study = changed_config(own_smoke, lambda config: config["transcoders"].update(unqualified="stop"))
    before = _weights(own_smoke, "transcoders")
    run = snakemake(*study, "--until", "choose_transcoder", folder=own_smoke)
    assert run.returncode != 0
    assert "x4k8" in said(run) and "unqualified: best" in said(run), said(run)[-3000:]
    assert _weights(own_smoke, "transcoders") == before != {}


# ------------------------------------------------------------------------------------------- labels, for money

LABELLED = "crosscoders/base-distill/traces/layer1/btk8/seed0"
KEY = "sk-ant-made-up-0123456789"


def paid(service: str, target: str | None, **changes) -> tuple[str, ...]:
    """Arguments that make a file of one dictionary with the smoke study's labels by Claude at this service."""
    claude = json.dumps({"base_url": service, "retries": 2, "poll_seconds": 0.1, **changes})
    target = () if target is None else (f"results/smoke/{LABELLED}/{target}",)
    return (*target, *SMOKE, "--config", f"labels={{provider: anthropic, anthropic: {claude}}}")


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


def test_a_key_in_the_environment_spends_nothing_by_itself(smoke, key):
    assert "Nothing to be done" in said(snakemake("--dry-run", *SMOKE, folder=smoke))
    labels = json.loads((smoke / f"results/smoke/{LABELLED}/labels.json").read_text())
    assert labels["provider"] == "offline" and labels["usage"]["dollars"] == 0
    assert not (smoke / "labels.sqlite").exists()


def test_claude_without_a_key_stops_the_run_before_it_starts_and_names_the_free_way(own_smoke, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    run = snakemake(*paid("http://127.0.0.1:9", "labels.json"), folder=own_smoke)
    assert run.returncode != 0 and "labels.provider: offline" in said(run), said(run)[-3000:]
    assert not (own_smoke / "labels.sqlite").exists()


def test_a_dry_run_says_what_labels_can_cost_at_most(smoke):
    run = snakemake("--dry-run", *paid("http://127.0.0.1:9", "labels.json"), folder=smoke)
    assert re.search(r"by provider anthropic: at most \d+\.\d\d dollars .* never more than 5\.00", said(run)), said(run)


def test_a_budget_of_zero_is_an_estimate(own_smoke, key):
    with FakeAnthropic() as service:
        run = snakemake(*paid(service.url, "labels.json", budget_dollars=0.0), folder=own_smoke)
        assert run.returncode != 0 and not service.billed["answers"]
    assert re.search(r"requests to send .*about \d+ input tokens.* nothing was sent", said(run), re.DOTALL), said(run)


def test_paid_labels_are_scored_and_paid_once_and_a_failed_one_is_asked_again(own_smoke, key):
    refusing = [{"kind": "refusal", "times": 2}]  # both attempts of the first label: requests come one after the other
    with FakeAnthropic(refusing) as service:
        run = snakemake(*paid(service.url, "label_scores.tsv", concurrency=1), folder=own_smoke)
        assert run.returncode == 0, said(run)[-4000:]
        found = json.loads((own_smoke / f"results/smoke/{LABELLED}/labels.json").read_text())
        status = [entry["status"] for entry in found["latents"]]
        assert status.count("failed") == 1 and status.count("labelled") == len(status) - 1 > 5
        assert [entry["label"] for entry in found["latents"] if entry["status"] == "failed"] == [None]
        scores = (own_smoke / f"results/smoke/{LABELLED}/label_scores.tsv").read_text()
        assert "interpretability" in scores and "pattern fit" not in scores
        before = dict(service.answered)
        again = snakemake(*paid(service.url, "label_scores.tsv", concurrency=1), folder=own_smoke)
        assert again.returncode == 0, said(again)[-4000:]
        whole = json.loads((own_smoke / f"results/smoke/{LABELLED}/labels.json").read_text())
        assert {entry["status"] for entry in whole["latents"]} == {"labelled"}
        assert whole["usage"]["dollars"] > 0
        asked_twice = {name for name, times in service.answered.items() if times > 1}
        assert len(asked_twice) == 1, "the failed one alone"
        assert set(before) <= set(service.answered)
        assert KEY in service.keys
    for path in own_smoke.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), f"{path} holds the key"
    assert KEY not in said(run) + said(again)


def test_examples_are_exported_in_the_shapes_that_others_read(own_smoke):
    folder = f"results/smoke/{LABELLED}/exports"
    run = snakemake(f"{folder}/neuronpedia", *SMOKE, folder=own_smoke)
    assert run.returncode == 0, said(run)[-3000:]
    assert list((own_smoke / folder / "neuronpedia").rglob("features/*.jsonl.gz"))
    assert list((own_smoke / folder / "legacy").rglob("*.db"))


def test_every_prompt_and_target_has_a_graph_or_the_reason_why_not(smoke):
    folder = smoke / "results/smoke/graphs"
    graphs = {path: read_graph(path) for path in sorted(folder.rglob("graph.npz"))}
    assert len(graphs) == 3 * (5 + 2 * 4)  # prompts, targets of distill, two seeds of base
    assert all(graph.n_nodes or graph.facts["reason"] for graph in graphs.values())
    made = [path for path, graph in graphs.items() if graph.n_nodes]
    assert len({path.parts[-4] for path in made}) == 2 and all(len(graphs[path].nodes_of(FEATURE)) for path in made)
    for path in graphs:
        assert json.loads((path.parent / "graph.json").read_text())["metadata"]["slug"]
        assert (path.parent / "graph.svg").read_text().startswith("<svg")
    data = smoke / "results/smoke/report/graphs/data"
    assert sum(len(list((data / model).rglob("*.js"))) for model in ("base", "distill")) == len(graphs)


def test_a_graph_that_is_lost_is_made_again_and_no_other(own_smoke):
    lost, kept = (own_smoke / f"results/smoke/graphs/distill/seed0/{name}/prompt/graph.npz" for name in PROMPTS[:2])
    before, made = lost.read_bytes(), json.loads(Path(f"{kept}.run.json").read_text())
    log = own_smoke / "logs/smoke/trace_graphs/distill.seed0.0.log"
    lost.unlink()
    run = snakemake(str(lost.relative_to(own_smoke)), *SMOKE, folder=own_smoke)
    assert run.returncode == 0, said(run)[-3000:]
    assert lost.read_bytes() == before and "trace 1 of 10 targets, keep the others" in log.read_text()
    assert json.loads(Path(f"{kept}.run.json").read_text()) == made


def test_another_limit_of_the_gate_runs_no_graph_again(smoke):
    rules = rules_to_run(
        snakemake("--dry-run", *SMOKE, "--config", "gates={graphs: {feature_share: 0.1}}", folder=smoke)
    )
    assert {"summarise_graphs", "compare_graphs", "write_report"} <= set(rules)
    assert not [name for name in rules if name.startswith(("trace_graphs", "count_motifs", "answer_prompts"))]


def test_graphs_from_elsewhere_take_part_once_their_folder_is_named(own_smoke):
    elsewhere = own_smoke / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    for name in PROMPTS:
        source = own_smoke / f"results/smoke/graphs/base/seed1/{name}/prompt/graph.json"
        shutil.copy(source, elsewhere / f"{name}.json")
    given = ("motifs={sources: {other: {folder: elsewhere}}}", "comparisons={published: other}")
    table = "results/smoke/comparisons/published.tsv"
    run = snakemake(table, *SMOKE, "--config", *given, folder=own_smoke)
    assert run.returncode == 0, said(run)[-3000:]
    rows = read_table(own_smoke / table)
    assert set(rows["group_a"]) == {"published/other"} and (rows["n"] == len(PROMPTS)).any()
    assert not rows["reason"].str.contains("no published graphs were given").any()


def test_a_folder_of_graphs_without_any_is_refused_before_the_run_starts(smoke):
    given = ("motifs={sources: {other: {folder: nowhere}}}", "comparisons={published: other}")
    run = snakemake("--dry-run", *SMOKE, "--config", *given, folder=smoke)
    assert run.returncode != 0 and "motifs.sources.other.folder: no .json file in nowhere" in said(run)


def test_the_manifest_has_every_file_of_the_study_with_rule_and_digest(finished_smoke):
    results = finished_smoke / "results/smoke"  # not the copy, in which other tests make some files anew
    assert verify(results / "manifest.json") == []
    content = json.loads((results / "manifest.json").read_text())
    written = {path.removesuffix(".run.json") for path in map(str, results.rglob("*.run.json"))}
    written = {Path(path).relative_to(results).as_posix() for path in written if Path(path).is_file()}
    written = {name for name in written - {"manifest.json"} if not name.startswith("release/")}
    assert len(written) > 200 and written <= {*content["artefacts"], *content["timed"]}
    assert all(row["rule"] for name, row in content["artefacts"].items() if name in written)
    assert "report.html" in content["timed"] and len(content["environments"]) == 1


def test_a_release_is_packaged_when_it_is_asked_for_and_names_no_machine(own_smoke, finished_smoke):
    release = own_smoke / "results/smoke/release"
    assert not release.exists(), "rule all asks for none"
    run = snakemake("package_release", *SMOKE, folder=own_smoke)
    assert run.returncode == 0, said(run)[-3000:]
    names = {path.name.removeprefix("smoke-") for path in release.iterdir() if path.is_dir()}
    pairs = {f"crosscoders-{pair}" for pair in ("base-distill", "base-base_continued", "base-format_only")}
    assert names == {*pairs, "transcoders-base", "transcoders-distill", "latents", "graphs"}
    for folder in (path for path in release.iterdir() if path.is_dir()):
        assert verify(folder / "manifest.json") == [] and (folder / "README.md").read_text().startswith("---\n")
        inside = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in inside if path.is_symlink() or path.name.endswith(".run.json")]
        for place in (own_smoke, finished_smoke):
            assert not [path for path in inside if str(place).encode() in path.read_bytes()]
    weights = "traces/layer1/btk8/seed0/crosscoder.safetensors"
    assert reasondiff.load(release / "smoke-crosscoders-base-distill" / weights).n_latents == 128
    assert "Nothing to be done" in said(snakemake("package_release", "--dry-run", *SMOKE, folder=own_smoke))


def test_an_upload_is_refused_before_the_run_unless_it_was_meant_and_can_be(own_smoke, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = snakemake("upload_release", *SMOKE, folder=own_smoke)
    assert run.returncode != 0 and "release.upload is false" in said(run), said(run)[-3000:]
    run = snakemake("upload_release", *SMOKE, "--config", "release={upload: true, licence: mit}", folder=own_smoke)
    assert run.returncode != 0 and "export HF_TOKEN" in said(run), said(run)[-3000:]
    assert not (own_smoke / "results/smoke/release/uploaded.json").exists()


def test_the_report_of_snakemake_is_made_without_network(own_smoke):
    run = snakemake("--report", "overview.html", *SMOKE, folder=own_smoke)
    assert run.returncode == 0, said(run)[-3000:]
    assert (own_smoke / "overview.html").stat().st_size > 10_000


def test_every_rule_says_which_question_it_answers():
    listed = said(snakemake("--list-rules", folder=ROOT))
    rules = re.findall(r"^([a-z]\w+)(.*)$", listed, flags=re.MULTILINE)
    assert {"train_model", "check_alignment", "write_report"} <= {name for name, _ in rules}


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_the_rule_graph_can_be_drawn():
    graph = snakemake("--rulegraph", "--cores", "1", folder=ROOT)
    assert graph.returncode == 0
    drawn = subprocess.run(["dot", "-Tsvg"], input=graph.stdout, capture_output=True, text=True)
    assert drawn.returncode == 0 and "train_model" in drawn.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.update(pars={}), "pars: no such key"),
        (lambda c: c["banks"]["main"].update(latents="many"), "banks.main.latents"),
        (lambda c: c["banks"]["main"].update(layers=[7]), "has layer 7, but model 'base' has 3 layers"),
        (lambda c: c["pairs"]["base-distill"].update(models=["base", "distil"]), "Did you mean 'distill'"),
        (lambda c: c["transcoders"]["points"]["x2k4"].update(k=65), "k (65) exceeds the 64 latents"),
        (lambda c: c["transcoders"]["models"]["base"].update(layers=[3]), "has layer 3, but model 'base' has 3 layers"),
        (lambda c: c["transcoders"].update(sweep=None), "without a `sweep` the `point` to train must be named"),
        (lambda c: c["transcoders"].update(trainer="sparsify"), "starts from random weights"),
    ],
)
def test_a_slip_in_the_config_stops_the_run_before_it_starts(tmp_path, change, told):
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    change(config)
    path = tmp_path / "slip.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    run = snakemake("--dry-run", "--cores", "1", "--configfile", str(path), folder=ROOT)
    assert run.returncode != 0 and told in said(run), said(run)
