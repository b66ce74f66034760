"""What does one job of a study take, and what is known of the study that it belongs to?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reasondiff.config import ModelSize, Source, Study
from reasondiff.costs.forward import Rows, model_bytes
from reasondiff.costs.learning import Dictionary
from reasondiff.costs.sizes import NotKnown
from reasondiff.costs.work import Number, Work
from reasondiff.dictionaries.planning import GIB

LIBRARIES = {"cpu": 0.8, "cuda": 4.0}
"""GiB of host memory that a job takes for Python, torch and, on a card, its driver."""
CARD_CONTEXT_GIB = 0.6
"""GiB of the card's memory that a process takes before it holds anything."""
TOKEN_BYTES = 5
"""Of the token table: an id and a phase."""
PROMPT_TOKENS = 150
"""Of a question as it is asked, chat template included."""


@dataclass(frozen=True)
class Job:
    """What one job takes. Bytes of memory are those that it holds besides what every job does; `disk_bytes` stay,
    `scratch_bytes` are given back in the end."""

    basis: str
    """Formula and assumptions, in words."""
    what: str = ""
    """Tells apart kinds of jobs of one rule that are worth a row each."""
    tokens: Number = 0.0
    """Read or written, each counted once however many models read it, once more for each further pass."""
    work: Work | None = None
    passes: int = 1
    disk_bytes: Number = 0.0
    scratch_bytes: Number = 0.0
    card_bytes: Number = 0.0
    host_bytes: Number = 0.0
    core_hours: Number = 0.0
    dollars: Number = 0.0


Planned = tuple[str, Callable[[], Job]]
"""A rule and one of its jobs, reckoned when it is called; it raises `NotKnown` where something is not said."""


@dataclass(frozen=True)
class Reckoned:
    """A study, with what is known of its models and the number of its benchmark prompts."""

    study: Study
    sizes: Mapping[str, ModelSize | None]
    prompts: int

    def size(self, model: str) -> ModelSize:
        """
        Raises:
            NotKnown: the study does not declare the model's sizes, and it was not located yet.
        """
        size = self.sizes[model]
        if size is None:
            raise NotKnown(
                f"the sizes of model {model!r}: declare them (models.{model}.size), or run the target "
                f"{self.study.results_dir}/models/{model}/model.json first"
            )
        return size

    def models(self, names: Sequence[str]) -> list[ModelSize]:
        return [self.size(name) for name in names]

    def rows(self, text: str) -> Rows:
        """How a text is read."""
        return Rows(self.study.text[text].context, self.study.stream.batch_rows, self.study.dtype)

    @property
    def calibration(self) -> int:
        """Tokens that every job which reads activations reads first: norms, then means."""
        return 2 * self.study.stream.calibration_tokens

    # -------------------------------------------------------------------------------------------- what is listed

    def sets(self, first_seed: bool = False) -> list[tuple[str, int]]:
        """(model, seed) of every set of transcoders, only of the first seeds on request."""
        section = self.study.transcoders
        return [
            (name, seed)
            for name, model in (section.models.items() if section else ())
            for seed in model.seeds[: 1 if first_seed else None]
        ]

    # -------------------------------------------------------------------------------------------- texts and memory

    def documents(self, text: str) -> int:
        """Of a text, at most: weights and `max_tokens` may leave some out.

        Raises:
            NotKnown: a source takes all the rows it has, and the study does not say how many those are.
        """
        return sum(self._documents(text, source) for source in self.study.text[text].sources.values())

    def _documents(self, text: str, source: Source) -> int:
        if source.kind == "generated":
            return source.problems * source.generations
        if source.kind == "generated_plain":
            return source.documents
        rows = source.rows or self.study.cost.source_rows.get(text)
        if rows is None:
            raise NotKnown(f"the rows of text {text!r}: say about how many in cost.source_rows.{text}")
        is_plain = source.kind == "plain_files" or getattr(source, "column", None) is not None
        return rows * (1 if is_plain else self.study.cost.documents_per_row)

    def table_bytes(self, text: str) -> int:
        """The token table of a text, at most."""
        return self.documents(text) * (self.study.text[text].max_tokens * TOKEN_BYTES + 26)

    def texts_of_unknown_size(self) -> list[str]:
        """Texts with a source whose rows are not said."""
        return [text for text in self.study.text if not self._is_known(text)]

    def _is_known(self, text: str) -> bool:
        try:
            return bool(self.documents(text))
        except NotKnown:
            return False

    def reading_host_bytes(self, text: str, models: Sequence[ModelSize]) -> Number:
        """Host memory of a job that reads a text: each model's whole weights pass through it, one after the other, from
        files that the system maps; the table of ids, where its size is known, and as much again while parts of it are
        chosen."""
        table = self.table_bytes(text) if self._is_known(text) else 0
        return loading_bytes(models, self.study.dtype) + 2 * table


def loading_bytes(models: Sequence[ModelSize], dtype: str) -> Number:
    """Host memory that loading some models takes, one after the other: weights, and the files that they come from."""
    return 2 * max((model_bytes(size, dtype) for size in models), default=0)


def held_bytes(dictionaries: Sequence[Dictionary]) -> int:
    """Dictionaries on their device."""
    return sum(one.file_bytes for one in dictionaries)


def gib(count: Number) -> Number:
    return count / GIB
