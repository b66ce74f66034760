"""What every test shares: the workflow's own library first on the path, one thread, a tokenizer, small models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.append(str(Path(__file__).resolve().parent))  # for `running`
sys.path.append(str(Path(__file__).resolve().parent / "labels"))  # for `fake_anthropic`

import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from fault_table import as_table, rows_of  # noqa: E402
from filelock import FileLock  # noqa: E402
from running import copy_workflow, said, snakemake  # noqa: E402

from reasondiff.config import Stream, Text  # noqa: E402
from reasondiff.models.load import describe_model  # noqa: E402
from reasondiff.text.bpe import tokenizer_texts, train_tokenizer  # noqa: E402
from reasondiff.text.preparation import COLUMNS  # noqa: E402
from reasondiff.text.tokens import tokenize_documents  # noqa: E402

torch.set_num_threads(1)


LONGEST_FIRST = (
    "slurm/", "test_workflow.py", "faults/", "test_published_studies.py", "conda/", "test_other_study.py",
    "dictionaries/test_parallel.py", "test_revisions.py", "test_new_study.py", "test_environments.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Modules that run whole studies come first, so that one of two workers is not left alone with them at the end."""

    def place(item) -> int:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((place for place, start in enumerate(LONGEST_FIRST) if file.startswith(start)), len(LONGEST_FIRST))

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter):
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.getreports(kind) if one.when == "call"]
    if rows := rows_of(reports):
        terminalreporter.section("faults")
        for line in as_table(rows):
            terminalreporter.write_line(line)


PLAIN = {"kind": "generated_plain", "weight": 1.0, "documents": 1, "seed": 0}


@pytest.fixture(scope="session")
def finished_smoke(tmp_path_factory) -> Path:
    """A copy of the workflow in which the smoke study has run, one for all workers of a session: to be copied
    (`running.copy_study`), never to be changed. `REASONDIFF_SMOKE` names one that is there already."""
    if ready := os.environ.get("REASONDIFF_SMOKE"):
        return Path(ready)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, outcome = shared / "finished_smoke", shared / "finished_smoke.txt"
    with FileLock(shared / "finished_smoke.lock"):
        if not outcome.exists():
            run = snakemake("--cores", "2", "--configfile", "config/smoke.yaml", folder=copy_workflow(folder))
            outcome.write_text("" if run.returncode == 0 else said(run)[-4000:])
    assert not outcome.read_text(), outcome.read_text()
    return folder


@pytest.fixture(autouse=True)
def _full_precision():
    """sparsify lowers the precision of products for the whole process when it is imported."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="session")
def small_tokenizer():
    """A tokenizer of 420 ids with the chat template of a reasoning model; do not change it."""
    return train_tokenizer(tokenizer_texts(0, 1500), 420)


@pytest.fixture(scope="session")
def text_settings():
    """`text_settings(mode="answers", ...)`: settings of a text, whole documents of up to 200 tokens by default."""

    def make(**changes):
        settings = {"sources": {"ours": PLAIN}, "mode": "both", "response": "verbatim", "prefix": "Think."}
        return Text.model_validate({**settings, "max_tokens": 200, "overlong": "drop", "context": 200, **changes})

    return make


@pytest.fixture(scope="session")
def make_documents():
    """`make_documents([{...}, ...])`: prepared documents, columns that are not given filled in."""

    def make(rows):
        defaults = {"source": "ours", "part": "train", "family": None, "prompt": None, "text": None, "correct": None}
        whole = [{"problem_id": f"p{index:04d}", **defaults, **row} for index, row in enumerate(rows)]
        return pd.DataFrame(whole, columns=list(COLUMNS)).astype(object).where(lambda frame: frame.notna(), None)

    return make


@pytest.fixture(scope="session")
def numbers_documents(make_documents):
    """Eighteen documents of several lengths: sums worked out at different length, a third of them to be reported."""
    rows = []
    for index in range(18):
        steps = "; ".join(f"{index} and {step} make {index + step}" for step in range(1 + index % 5))
        part = ("train", "calibrate", "report")[index % 3]
        rows.append(
            {"prompt": f"Add {index} to 3. Think.", "think": steps, "answer": f"It is {index + 3}.", "part": part}
        )
    return make_documents(rows)


@pytest.fixture(scope="session")
def numbers_table(numbers_documents, small_tokenizer, text_settings):
    """The token table of `numbers_documents`."""
    return tokenize_documents(numbers_documents, small_tokenizer, text_settings())


@pytest.fixture(scope="session")
def stream_settings():
    """`stream_settings(batch_rows=2, ...)`: how activations are read."""

    def make(**changes):
        return Stream(
            **{
                "batch_rows": 3,
                "first_positions": 2,
                "norm_factor": 10.0,
                "calibration_tokens": 500,
                "compile": False,
                **changes,
            }  # fmt: skip
        )

    return make


@pytest.fixture(scope="session")
def small_models(tmp_path_factory, small_tokenizer):
    """Random models of 3 layers and width 16 in their folders: qwen2, another qwen2, llama, and a wider llama."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    wanted = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM, 16),
        "other": (Qwen2Config, Qwen2ForCausalLM, 16),
        "llama": (LlamaConfig, LlamaForCausalLM, 16),
        "wide": (LlamaConfig, LlamaForCausalLM, 24),
    }
    infos = {}
    for seed, (name, (settings, kind, hidden)) in enumerate(wanted.items()):
        torch.manual_seed(seed)
        sizes = {"hidden_size": hidden, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
        config = settings(
            vocab_size=420, num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.2, **sizes
        )
        folder = tmp_path_factory.mktemp("models") / name
        kind(config).save_pretrained(folder)
        small_tokenizer.save_pretrained(folder)
        infos[name] = describe_model(name, folder)
    return infos
