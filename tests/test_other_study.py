"""Do the same rules run another pair and another text by config alone?

Two random models of the Llama architecture in local folders, a JSON-lines file of one's own, a file of plain text;
transcoders of one model trained by sparsify within the workflow, those of the other by its API beforehand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from running import ROOT, copy_workflow, said, snakemake

sys.path.insert(0, str(ROOT / "scripts"))


def save_llama(folder: Path, tokenizer, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_inputs(folder: Path) -> None:
    from reasondiff.text.bpe import tokenizer_texts, train_tokenizer
    from reasondiff.text.corpus import openr1_rows

    tokenizer = train_tokenizer(tokenizer_texts(0, 300), 450)
    for name, seed in (("first", 0), ("second", 1)):
        save_llama(folder / "inputs" / name, tokenizer, seed)
    rows = openr1_rows(
        n=250, generations=2, steps_weights={1: 0.5, 2: 0.5}, wrong_share=0.1, truncated_share=0.1, seed=9
    )
    kept = ("problem", "answer", "generations", "is_reasoning_complete", "correctness_math_verify")
    lines = [json.dumps({key: row[key] for key in kept}) for row in rows]
    (folder / "inputs/rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "inputs/plain.txt").write_text("".join(f"A plain line about the number {i}.\n" for i in range(400)))


def train_by_the_api_of_sparsify(folder: Path, hookpoints: list[str], name: str) -> None:
    """What a user of that package does: transcoders of the second model, from rows of text that run on and on."""
    import torch
    from sparsify import SparseCoderConfig, TrainConfig, Trainer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "inputs/second")
    rows = [json.loads(line) for line in (folder / "inputs/rows.jsonl").read_text().splitlines()]
    ids = tokenizer(" ".join(row["problem"] + row["generations"][0] for row in rows))["input_ids"]
    batches = [{"input_ids": torch.tensor(ids[at : at + 64])} for at in range(0, len(ids) - 64, 64)]
    settings = TrainConfig(
        SparseCoderConfig(expansion_factor=4, k=8, transcode=True, skip_connection=True), batch_size=4,
        hookpoints=hookpoints, log_to_wandb=False, save_dir=str(folder / "inputs"), run_name=name,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder / "inputs/second")
    Trainer(settings, batches, model).fit()


def other_config() -> dict:
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    local = {"stage": "local", "elicitations": ["direct"]}
    sources = {
        "mine": {"kind": "files", "weight": 0.8, "files": ["inputs/rows.jsonl"], "rows": None},
        "plain": {"kind": "plain_files", "weight": 0.2, "files": ["inputs/plain.txt"], "column": None, "rows": None},
    }
    pair = {"models": ["first", "second"], "tokenizer": "own", "texts": ["mine"], "role": "effect", "control": None}
    transcoded = {"text": "mine", "tokenizer": "own", "layers": [0, 1], "seeds": [0], "start_from": None}
    nowhere = {"folder": None, "repo": None, "revision": None, "hookpoint": None}
    point = config["banks"]["main"]["points"]["btk8"] | {"seeds": [0]}
    config |= {
        "study": "other",
        "results_dir": "results/other",
        "tokenizers": {"own": {"source": "model", "model": "second"}},
        "models": {name: {**local, "folder": f"inputs/{name}"} for name in ("first", "second")},
        "text": {"mine": {**config["text"]["traces"], "sources": sources}},
        "pairs": {"first-second": pair},
        "banks": {
            "main": config["banks"]["main"] | {"pairs": ["first-second"], "points": {"btk8": point}, "tokens": 10000}
        },
        "transcoders": config["transcoders"]
        | {
            "trainer": "sparsify",
            "models": {
                "first": {**transcoded, "ready": None},
                "second": {**transcoded, "ready": {**nowhere, "folder": "inputs/ready"}},
            },
            "sweep": None,
            "point": "x2k4",
            "training": config["transcoders"]["training"] | {"tokens": 10000},
        },
        "split": config["split"] | {"held_out_family": None},
        "concepts": None,
        "prompts": config["prompts"]
        | {"reasoning": "second", "base": "first", "elicitations": {"first": "solution", "second": "think"}},
        "graphs": config["graphs"] | {"links": None},
        "report": config["report"] | {"banner": None},
    }
    return config


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    folder = copy_workflow(tmp_path_factory.mktemp("other"))
    (folder / "inputs").mkdir()
    write_inputs(folder)
    train_by_the_api_of_sparsify(folder, ["layers.*.mlp"], "ready")
    (folder / "config/other.yaml").write_text(yaml.safe_dump(other_config(), sort_keys=False))
    run = snakemake("--cores", "2", "--configfile", "config/other.yaml", folder=folder)
    assert run.returncode == 0, said(run)[-4000:]
    return folder


def test_a_llama_pair_and_a_text_of_ones_own_get_their_page(other):
    assert "first-second" in (other / "results/other/report.html").read_text()


def test_a_llama_pair_has_graphs_with_latents_made_with_transcoders_of_sparsify(other):
    from reasondiff.store import read_table

    summary = read_table(other / "results/other/graphs/summary.tsv")
    made = summary[summary["target"] == "prompt"]
    assert len(made) == 3 * 2 and (made["status"] == "traced").all() and (made["features"] > 0).all()
    assert (made["coverage"] == 1).all()


def test_a_base_without_a_second_seed_leaves_the_models_uncompared(other):
    from reasondiff.store import read_table

    rows = read_table(other / "results/other/comparisons/reasoning_base.tsv")
    assert set(rows.loc[rows["measure_family"] != "match", "verdict"]) <= {"not testable"}


def test_both_sources_are_in_the_token_table_by_weight(other):
    from reasondiff.text.tokens import load_tokens

    table = load_tokens(other / "results/other/text/mine/own/tokens.npz")
    lengths = table.lengths()
    plain = lengths[table.source == 1].sum() / lengths.sum()
    assert abs(plain - 0.2) < 0.02


def test_the_crosscoder_names_its_models_and_the_ids_they_read(other):
    import reasondiff

    crosscoder = reasondiff.load(next((other / "results/other").rglob("crosscoder.safetensors")))
    assert [name for name, _ in crosscoder.card["models"]] == ["first", "second"]  # in the order of its sides
    assert len(crosscoder.card["ids_digest"]) == 16


def test_transcoders_trained_by_sparsify_are_evaluated_and_reported(other):
    """Those trained within the workflow and those from elsewhere alike; the latter are the same weights."""
    from safetensors.torch import load_file

    import reasondiff

    results = other / "results/other"
    assert json.loads((results / "transcoders/choice.json").read_text())["how"] == "config"
    for model, point in (("first", "x2k4"), ("second", "ready")):
        folder = results / f"transcoders/{model}/mine/{point}/seed0"
        table = reasondiff.load(folder / "evaluation.tsv")
        loss = table[(table["quantity"] == "kl_nats") & (table["phase"] == "all") & (table["mask"] == "unmasked")]
        zeros, ours = (loss[(loss["at"] == at) & (loss["layer"] == "all")] for at in ("zero_ablation", "transcoder"))
        assert 0 < float(ours["value"].iloc[0]) < float(zeros["value"].iloc[0])
    theirs = load_file(other / "inputs/ready/layers.1.mlp/sae.safetensors")
    taken = reasondiff.load(folder / "layers.1.mlp/sae.safetensors")
    assert torch.equal(taken.encoder, theirs["encoder.weight"]) and taken.k == 8
    assert taken.card["hookpoint"] == "layers.1.mlp" and taken.card["folder"] == "inputs/ready"
    page = (results / "report.html").read_text()
    assert "ready" in page and "Transcoders" in page


def test_transcoders_of_a_whole_block_are_refused_even_under_the_name_of_the_mlp(other):
    """Unexplained variance on the MLP gives them away."""
    train_by_the_api_of_sparsify(other, ["layers.0", "layers.1"], "blocks")
    for layer in (0, 1):
        (other / f"inputs/blocks/layers.{layer}").rename(other / f"inputs/blocks/layers.{layer}.mlp")
    config = other_config()
    config["transcoders"]["models"]["second"]["ready"]["folder"] = "inputs/blocks"
    (other / "config/blocks.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run = snakemake(
        "--cores", "1", "--configfile", "config/blocks.yaml", "--until", "import_transcoders_second", folder=other
    )
    assert run.returncode != 0
    assert "inputs/blocks/layers.0.mlp" in said(run) and "of the variance of the MLP's output unexplained" in said(run)
    assert (other / "results/other/transcoders/first/mine/x2k4/seed0/evaluation.tsv").exists()


def test_a_truncated_checkpoint_is_named_before_anything_is_trained(other):
    weights = other / "inputs/second/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    try:
        run = snakemake(
            "--cores", "1", "--configfile", "config/other.yaml", "--forcerun", "measure_divergence", "--until",
            "measure_divergence", folder=other,
        )  # fmt: skip
    finally:
        weights.write_bytes(whole)
    assert run.returncode != 0 and "model 'second'" in said(run) and "they are damaged or were replaced" in said(run)
    assert next((other / "results/other").rglob("crosscoder.safetensors")).exists()
