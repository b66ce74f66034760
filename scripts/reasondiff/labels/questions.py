"""What is a labeller shown, and what is a judge of labels asked?

The offline provider and Claude get the same subjects and the same questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Task = Literal["detection", "fuzzing"]


@dataclass(frozen=True)
class Example:
    """A window on which a latent fires: tokens and its activation on each (0 where it is silent)."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    phase: str


@dataclass(frozen=True)
class Subject:
    """A latent to be labelled, with the examples of the part `choose` that a labeller sees, strongest first."""

    layer: int
    latent: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Label:
    """`text`: 3 to 8 words; `explanation`: one sentence; `pattern`: what the offline provider predicts with, else
    None."""

    text: str
    explanation: str
    pattern: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Failure:
    """No label: the reason in words. Never to be shown as a label."""

    reason: str


@dataclass(frozen=True)
class Passage:
    """A window to be judged; `marked` says which tokens are marked (none in detection), `phase` in which phase of its
    document it lies (empty where that is not told)."""

    tokens: tuple[str, ...]
    marked: tuple[bool, ...]
    phase: str = ""


@dataclass(frozen=True)
class Question:
    """Detection: does the latent with this label fire somewhere in each passage? Fuzzing: are the marked tokens of
    each passage those it fires on?"""

    task: Task
    label: Label
    passages: tuple[Passage, ...]


@runtime_checkable
class Provider(Protocol):
    """Who labels latents and judges labels. `measure` names what its judgement of a label is: `pattern fit` for the
    offline provider, `interpretability` for Claude."""

    measure: str

    def label(self, subjects: Sequence[Subject]) -> list[Label | Failure]:
        """One answer for each subject, in order."""

    def judge(self, questions: Sequence[Question]) -> list[list[bool | None]]:
        """For each question one answer for each passage; None where no answer came."""

    def usage(self, subjects: Sequence[Subject]) -> dict[str, int | float]:
        """requests, input_tokens, output_tokens and dollars that the labels of these subjects cost, whoever paid."""
