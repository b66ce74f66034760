"""A file that is truncated, or of which one bit flipped, is refused by name, or reads as it was written."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from killing import EXAMPLES, LABELS, RESULTS, SEED, Work, digests
from running import said

from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.dictionaries.transcoder import load_transcoder
from reasondiff.graphs.graph import read_graph
from reasondiff.labels.store import LabelError, Payment, Settlement, Store
from reasondiff.latents.example_table import read_examples
from reasondiff.latents.records import Sources, read_records
from reasondiff.manifest import artefact_names
from reasondiff.models.load import ModelError, load_model, load_tokenizer, read_info
from reasondiff.models.unembedding import read_unembedding
from reasondiff.store import ArtefactError, read_card, read_json, read_json_lines, read_table
from reasondiff.text.tokens import load_tokens

FLIPS, CUTS = 12, 4
SHOWN_ONLY = {".svg", ".html", ".js", ".png", ".css"}
"""What the workflow writes for people to look at; results/manifest.json has the digests."""


@dataclass(frozen=True)
class Kind:
    """An artefact of the smoke study, what of its folder a reader needs, and the reader."""

    name: str
    path: str
    read: Callable[[Path], Any]
    beside: tuple[str, ...] = ()


def _model(path: Path) -> Any:
    return load_model(read_info(path.with_name("model.json")), "cpu", "float32").state_dict()


def _transcoder(path: Path) -> Any:
    """What a transcoder computes with, in a form that compares."""
    parts = vars(load_transcoder(path.parent))
    return {name: part.numpy().tobytes() if hasattr(part, "numpy") else part for name, part in parts.items()}


def _tokenizer(path: Path) -> str:
    tokenizer = load_tokenizer(path.parent)
    return tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)


def _records(path: Path) -> Any:
    folder = path.parent
    tables = {name: folder / f"{name}.parquet" for name in ("firing", "examples", "logits")}
    return list(read_records(Sources(**tables, labels=folder / "labels.json")))


_ONE = "crosscoders/base-distill/traces/layer1/btk8/seed0"
_TRANSCODER = "transcoders/base/traces/x4k8/seed0/layers.1.mlp"
_TABLES = ("firing.parquet", "examples.parquet", "logits.parquet", "labels.json")
_GRAPH = "graphs/distill/seed0/arithmetic_01/prompt"
_MODEL = ("model.json", "model.safetensors", "*.json", "*.jinja")
KINDS = [
    Kind("crosscoder weights", f"{_ONE}/crosscoder.safetensors", load_crosscoder),
    Kind(
        "transcoder weights",
        f"{_TRANSCODER}/sae.safetensors",
        _transcoder,
        ("cfg.json",),
    ),
    Kind(
        "transcoder settings",
        f"{_TRANSCODER}/cfg.json",
        _transcoder,
        ("sae.safetensors",),
    ),
    Kind("model weights", "models/distill/model.safetensors", _model, _MODEL),
    Kind(
        "unembedding of a model",
        "models/distill/model.safetensors",
        lambda path: read_unembedding(read_info(path.with_name("model.json")), "cpu"),
        _MODEL,
    ),
    Kind("model settings", "models/distill/config.json", _model, _MODEL),
    Kind("model card", "models/distill/model.json", read_info, _MODEL),
    Kind("tokenizer of a model", "models/distill/tokenizer.json", _tokenizer, _MODEL),
    Kind("tokenizer", "text/tokenizers/tiny/tokenizer.json", _tokenizer, ("*.json", "*.jinja")),
    Kind("chat template", "text/tokenizers/tiny/chat_template.jinja", _tokenizer, ("*.json", "*.jinja")),
    Kind("token table", "text/traces/tiny/tokens.npz", load_tokens),
    Kind("graph", f"{_GRAPH}/graph.npz", read_graph),
    Kind("graph for other tools", f"{_GRAPH}/graph.json", read_json),
    Kind("examples", f"{_ONE}/examples.parquet", read_examples),
    Kind("some examples", f"{_ONE}/examples.parquet", lambda path: read_examples(path, kinds=["strongest"])),
    Kind("latents one by one", f"{_ONE}/firing.parquet", _records, _TABLES),
    Kind("documents", "text/traces/documents.parquet", read_table),
    Kind("table of figures", f"{_ONE}/latents.tsv", read_table),
    Kind("labels", f"{_ONE}/labels.json", read_json),
    Kind("guard of a pair", "crosscoders/base-distill/traces/alignment.json", read_json),
    Kind("history of a training", f"{_ONE}/training.jsonl", read_json_lines),
]


def test_no_kind_of_file_that_the_workflow_reads_is_forgotten(finished_smoke):
    found = {Path(name).suffix for name in artefact_names(finished_smoke / RESULTS)}
    assert found - SHOWN_ONLY <= {Path(kind.path).suffix for kind in KINDS}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name.replace(" ", "_"))
def kind(request) -> Kind:
    return request.param


@pytest.fixture
def file(kind, finished_smoke, tmp_path) -> Path:
    """A copy of the artefact and of what lies beside it."""
    source = finished_smoke / RESULTS / kind.path
    for path in [source, *(path for pattern in kind.beside for path in source.parent.glob(pattern))]:
        shutil.copy2(path, tmp_path / path.name)
    return tmp_path / source.name


def flipped(data: bytes, chance: random.Random) -> bytes:
    """`data` with one bit changed, outside of the two words by which a file is known to have a seal."""
    words = [(start, start + len(word)) for word in (b"card", b"seal") if (start := _last_or_first(data, word)) >= 0]
    while True:
        place = chance.randrange(len(data))
        if not any(start <= place < end for start, end in words):
            return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def _last_or_first(data: bytes, word: bytes) -> int:
    """Where the word stands in the card, which is at one end of the file."""
    seal = data.rfind(b"seal") if data[:4] == b"PAR1" or data[:1] == b"{" else data.find(b"seal")
    return seal if word == b"seal" else data.rfind(b"card", 0, seal) if seal >= 0 else -1


def outcome(kind: Kind, file: Path, whole: bytes) -> str:
    """What came of reading a damaged file."""
    try:
        found = kind.read(file)
    except (ArtefactError, ModelError) as error:
        told = str(error)
        assert file.name in told or file.parent.name in told, f"{kind.name}: the file is not named in: {told}"
        assert any(word in told for word in ("again", "expected", "can be read")), f"{kind.name}: no remedy in: {told}"
        return "refused by name"
    assert pickle.dumps(found) == whole, f"{kind.name}: read as if nothing had happened, seed {SEED}"
    return "read as it was written"


def test_a_flipped_bit_is_refused_or_changes_nothing_that_is_read(kind, file, count_fault):
    chance = random.Random(f"{SEED}/{kind.name}")
    data, whole = file.read_bytes(), pickle.dumps(kind.read(file))
    seen = []
    for _ in range(FLIPS):
        file.write_bytes(flipped(data, chance))
        seen.append(outcome(kind, file, whole))
        count_fault(f"flipped bit: {file.suffix}", seen[-1])
    if file.suffix in (".safetensors", ".parquet", ".tsv", ".jsonl", ".jinja"):
        assert set(seen) == {"refused by name"}


def test_a_truncated_file_is_refused(kind, file, count_fault):
    chance = random.Random(f"{SEED}/{kind.name}/cut")
    data, whole = file.read_bytes(), pickle.dumps(kind.read(file))
    lines = [place + 1 for place, byte in enumerate(data[:-1]) if byte == 10]
    cuts = [0, len(data) - 2, *(chance.randrange(len(data) - 1) for _ in range(CUTS)), *lines[:1], *lines[-1:]]
    for cut in cuts:
        file.write_bytes(data[:cut])
        assert outcome(kind, file, whole) == "refused by name", f"{cut} of {len(data)} bytes, seed {SEED}"
        count_fault(f"truncated: {file.suffix}", "refused by name")


@pytest.mark.parametrize("word", [b"card", b"seal"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in ("table of figures", "crosscoder weights")])
def test_a_file_whose_seal_is_not_found_reads_as_it_was_written_or_is_refused(kind, file, word):
    """The one place where a flipped bit may go unnoticed: it makes the file one from before there were seals."""
    before = kind.read(file)
    data = file.read_bytes()
    place = _last_or_first(data, word)
    file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    try:
        found = kind.read(file)
    except ArtefactError as error:
        assert file.name in str(error)
    else:
        same = found.equals(before) if hasattr(found, "equals") else bool((found.decoder == before.decoder).all())
        assert same


# ------------------------------------------------------------------------------------------- through Snakemake


@pytest.mark.parametrize(
    ("work", "damaged"),
    [(LABELS, f"{_ONE}/firing.parquet"), (EXAMPLES, f"{_ONE}/crosscoder.safetensors")],
    ids=["table", "weights"],
)
def test_a_job_refuses_a_damaged_input_and_the_remedy_it_names_brings_all_back(
    workplace, work: Work, damaged, count_fault
):
    path = workplace.folder / RESULTS / damaged
    workplace.lose(work)
    path.write_bytes(flipped(path.read_bytes(), random.Random(f"{SEED}/{damaged}")))
    run = workplace.snakemake(work)
    assert run.returncode != 0
    assert f"{RESULTS / damaged} cannot be read" in said(run) and "delete it and run the same command again" in said(
        run
    )
    path.unlink()
    workplace.resume(work)
    assert digests(workplace.folder / RESULTS) == workplace.whole, workplace.changed()
    count_fault(f"flipped bit under Snakemake: {path.suffix}", "job failed, same bytes after the remedy")


# ------------------------------------------------------------------------------------------- what was paid for


ANSWERS = 400


@pytest.fixture(scope="module")
def bought(tmp_path_factory) -> bytes:
    """A store of paid answers, as bytes."""
    path = tmp_path_factory.mktemp("bought") / "labels.sqlite"
    store = Store(path)
    keys = [f"{number:064x}" for number in range(ANSWERS)]
    store.claim(dict.fromkeys(keys, 0.01), "study", 100.0)
    store.settle([Settlement(key, Payment(f"id {key}", 100, 10, 0.01), _answer(key)) for key in keys])
    store.close()
    return path.read_bytes()


def _answer(key: str) -> dict[str, str]:
    return {"label": f"numbers like {int(key, 16)}", "explanation": "They stand before an equals sign. " * 3}


def read_answers(path: Path) -> dict[str, Any]:
    store = Store(path)
    try:
        return {key: row.answer for key, row in store.rows(f"{number:064x}" for number in range(ANSWERS)).items()}
    finally:
        store.close()


def _zeroed(data: bytes, start: int, size: int) -> bytes:
    return data[:start] + bytes(size) + data[start + size :]


@pytest.mark.parametrize(
    ("injury", "damage"),
    [
        ("header overwritten", lambda data: b"not a database, it was overwritten" + data[34:]),
        ("truncated", lambda data: data[: len(data) // 2]),
        ("a page of zeros", lambda data: _zeroed(data, 4096 * 7, 4096)),
        ("its first page alone", lambda data: data[:4096]),
    ],
    ids=["header", "truncated", "zeros", "first_page"],
)
def test_a_damaged_store_is_refused_by_name_and_left_as_it_is(bought, tmp_path, injury, damage, count_fault):
    path = tmp_path / "labels.sqlite"
    path.write_bytes(damage(bought))
    with pytest.raises(LabelError, match=r"labels\.sqlite cannot be used .*(restore a copy|\.recover)"):
        read_answers(path)
    assert path.read_bytes() == damage(bought), "what can still be saved is not touched"
    count_fault(f"store of labels: {injury}", "refused by name")


def test_no_flipped_bit_makes_a_paid_answer_another_one_or_disappear(bought, tmp_path, count_fault):
    path, chance = tmp_path / "labels.sqlite", random.Random(f"{SEED}/store")
    expected = {f"{number:064x}": _answer(f"{number:064x}") for number in range(ANSWERS)}
    for _ in range(60):
        place = chance.randrange(len(bought))
        path.write_bytes(bought[:place] + bytes([bought[place] ^ 1 << chance.randrange(8)]) + bought[place + 1 :])
        try:
            assert read_answers(path) == expected, f"byte {place}, seed {SEED}"
            seen = "all answers as they were"
        except LabelError as error:
            assert "labels.sqlite" in str(error), error
            seen = "refused by name"
        count_fault("store of labels: flipped bit", seen)


def test_an_answer_of_before_there_were_digests_is_still_read(bought, tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_bytes(bought)
    store = Store(path)
    store.db.execute("UPDATE requests SET answer = ?", [json.dumps({"label": "old"})])
    assert {row["label"] for row in read_answers(path).values()} == {"old"}


def test_a_card_alone_is_not_read_from_a_damaged_file(finished_smoke, tmp_path):
    path = tmp_path / "latents.tsv"
    data = (finished_smoke / RESULTS / _ONE / "latents.tsv").read_bytes()
    path.write_bytes(data[:-2] + b"9\n")
    with pytest.raises(ArtefactError, match=r"latents\.tsv cannot be read"):
        read_card(path)
