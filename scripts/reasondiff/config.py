"""What may a study's configuration say?

One frozen class per stage. Nothing here has a default that would change a result: the YAML file says everything.
`load_study` is called once, by the Snakefile, so that a slip stops the run within a second.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
PointName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]
Layers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]

SHARED_PARTS = ("train", "calibrate", "choose", "score", "report")
PARTS = (*SHARED_PARTS, "family")  # `family`: problems of the held-out family


class ConfigError(ValueError):
    """The configuration says something that cannot be run; the message names the key."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ------------------------------------------------------------------------------------------------ models


class Architecture(Settings):
    """A small Qwen2: widths in units, counts of layers and heads, `positions` the longest document in tokens."""

    hidden: Count
    layers: Count
    mlp: Count
    heads: Count
    kv_heads: Count
    positions: Count


class BaseMix(Settings):
    """Shares of the kinds of text a base model is trained on; they are normalised to sum to 1."""

    general: Share
    facts: Share
    one_step: Share
    direct: Share
    copying: Share
    solutions: Share


class _Stage(Settings):
    """What every stage of the tiny chain says. `elicitations` are the prompts its accuracy is measured with."""

    seed: Seed
    elicitations: tuple[Literal["direct", "solution", "think"], ...]


class _GradientStage(_Stage):
    tokens: Count
    batch_tokens: Count
    optimizer: Literal["adam", "muon"]
    learning_rate: Positive
    learning_rate_matrices: Positive | None
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_share: Share
    decay_share: Share

    @model_validator(mode="after")
    def _muon_has_its_own_rate(self):
        if self.optimizer == "muon" and self.learning_rate_matrices is None:
            raise ValueError("optimizer: muon needs `learning_rate_matrices` (Adam takes `learning_rate`)")
        return self


class Pretrain(_GradientStage):
    """A base model, trained from nothing on the mix."""

    stage: Literal["pretrain"]
    tokenizer: Name
    architecture: Architecture
    mix: BaseMix


class Continue(_GradientStage):
    """The base trained on, on its own mix, as the distilled model was trained: the null of every exclusive count."""

    stage: Literal["continue"]
    parent: Name
    mix: BaseMix


class Finetune(_GradientStage):
    """Distillation: supervised training on reasoning traces, loss on the response only."""

    stage: Literal["finetune"]
    parent: Name
    one_step_share: Share
    format_only: bool


class Reinforce(_Stage):
    """Reinforcement learning on the correctness of the answer."""

    stage: Literal["reinforce"]
    parent: Name
    method: Literal["grpo", "expert_iteration"]
    iterations: Count
    problems_per_iteration: Count
    samples_per_problem: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    temperature: Positive
    length_penalty: Annotated[float, Field(ge=0)]
    batch_tokens: Count
    max_new_tokens: Count


class Reparametrise(_Stage):
    """The parent with its residual stream scaled and, where `rotate`, in a random basis: every logit the same, no
    activation. A crosscoder of the two has nothing to find: a null that costs no training."""

    stage: Literal["reparametrise"]
    parent: Name
    rotate: bool
    scale: Positive


class ModelSize(Settings):
    """What a model from elsewhere is said to be: widths in units, counts of layers and heads, `vocabulary` embedded
    ids, `tied` where the unembedding is the embedding. Plans and costs rest on it before anything is fetched; the
    model's own config.json must say the same."""

    hidden: Count
    layers: Count
    mlp: Count
    heads: Count
    kv_heads: Count
    vocabulary: Count
    tied: bool


class LocalModel(Settings):
    """A Hugging Face folder on this machine. `untrained` are tokens this model has an id for but never saw."""

    stage: Literal["local"]
    folder: str
    elicitations: tuple[Literal["direct", "solution", "think"], ...]
    untrained: tuple[str, ...] = ()
    size: ModelSize | None = None


class HubModel(Settings):
    """A model of the Hugging Face hub at one revision; null: the commit that the study's `revisions` file names."""

    stage: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(min_length=1)] | None
    elicitations: tuple[Literal["direct", "solution", "think"], ...]
    untrained: tuple[str, ...] = ()
    size: ModelSize | None = None


Model = Annotated[
    Pretrain | Continue | Finetune | Reinforce | Reparametrise | LocalModel | HubModel, Field(discriminator="stage")
]


class TrainedTokenizer(Settings):
    """A byte-level BPE trained on `texts` generated texts."""

    source: Literal["train"]
    vocabulary: Annotated[int, Field(ge=300)]
    texts: Count
    seed: Seed


class ModelTokenizer(Settings):
    """The tokenizer of one of the study's models, chat template included."""

    source: Literal["model"]
    model: Name


Tokenizer = Annotated[TrainedTokenizer | ModelTokenizer, Field(discriminator="source")]


class Accuracy(Settings):
    """How accuracy is measured: on problems of the `report` part. `decodings` maps a name to a temperature, 0 being
    greedy."""

    problems: Count
    held_out_family_problems: Annotated[int, Field(ge=0)]
    samples: Count
    decodings: dict[Name, Annotated[float, Field(ge=0)]]
    max_new_tokens: Count
    batch_size: Count
    seed: Seed


# ------------------------------------------------------------------------------------------------ text


class GeneratedRows(Settings):
    """Problems with reasoning traces made by the workflow itself, in the OpenR1-Math schema."""

    kind: Literal["generated"]
    weight: Positive
    problems: Count
    generations: Count
    steps: dict[Annotated[int, Field(ge=1, le=3)], Share]
    wrong_share: Share
    truncated_share: Share
    seed: Seed


class GeneratedPlain(Settings):
    """Plain sentences, facts and lists made by the workflow itself."""

    kind: Literal["generated_plain"]
    weight: Positive
    documents: Count
    seed: Seed


class HubRows(Settings):
    """A data set of the hub, with the columns of OpenR1-Math-220k or, where `column` is named, plain text in it."""

    kind: Literal["hub"]
    weight: Positive
    repo: str
    revision: Annotated[str, Field(min_length=1)] | None
    subset: str | None
    split: str
    rows: Count | None
    column: str | None = None


class FileRows(Settings):
    """Local JSON-lines or Parquet files with the columns of OpenR1-Math-220k."""

    kind: Literal["files"]
    weight: Positive
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Count | None


class PlainFiles(Settings):
    """Local plain text: `.txt` (a document a line), or JSON lines / Parquet with the text in `column`."""

    kind: Literal["plain_files"]
    weight: Positive
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    column: str | None
    rows: Count | None


Source = Annotated[GeneratedRows | GeneratedPlain | HubRows | FileRows | PlainFiles, Field(discriminator="kind")]


class PartShares(Settings):
    """Shares of the problems in each part; by hash of the problem, so that a problem is in one part only."""

    train: Share
    calibrate: Share
    choose: Share
    score: Share
    report: Share

    @model_validator(mode="after")
    def _sum_to_one(self):
        total = sum(getattr(self, part) for part in SHARED_PARTS)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the parts must sum to 1, they sum to {total:.4g}")
        return self


class Split(Settings):
    """How problems fall into parts. The held-out family is a part of its own (null for text of other origin)."""

    seed: Seed
    shares: PartShares
    held_out_family: str | None


class Text(Settings):
    """One prepared text. `mode`: answers (no think part), traces (think part only), both.
    `response`: verbatim (appended to the generation prompt, nothing lost) or template (as the chat template
    renders an assistant turn, which may drop the think part)."""

    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    mode: Literal["answers", "traces", "both"]
    response: Literal["verbatim", "template"]
    prefix: str
    max_tokens: Annotated[int, Field(ge=8)]
    overlong: Literal["cut", "drop"]
    context: Annotated[int, Field(ge=8)]

    @model_validator(mode="after")
    def _rows_hold_documents(self):
        if self.context < self.max_tokens:
            raise ValueError(f"context ({self.context}) must hold a document of max_tokens ({self.max_tokens})")
        return self


# ------------------------------------------------------------------------------------------------ diffing


class Pair(Settings):
    """Two or more models (the base first) under one tokenizer. `control` names the pair whose exclusive counts
    are the null of this one's, `nulls` further ones, each after what it is a null of; `role` says what the pair is
    for."""

    models: Annotated[tuple[Name, ...], Field(min_length=2)]
    tokenizer: Name
    texts: Annotated[tuple[Name, ...], Field(min_length=1)]
    role: Literal["effect", "control"]
    control: Name | None
    nulls: dict[Name, Name] = {}

    def all_nulls(self) -> dict[str, str]:
        """{what it is a null of: pair}, the control first under the name `training`."""
        return ({"training": self.control} if self.control else {}) | self.nulls


class Stream(Settings):
    """How activations are read: rows of packed documents a forward pass, and what is left out of training.

    A token is a sink if its position in the document is below `first_positions` or its norm exceeds
    `norm_factor` times the median of the first `calibration_tokens` tokens at that site in any model.
    `compile`: the models' blocks are compiled, which rounds otherwise and needs a C compiler."""

    batch_rows: Count
    first_positions: Annotated[int, Field(ge=0)]
    norm_factor: Positive
    calibration_tokens: Count
    compile: bool


class Divergence(Settings):
    tokens: Count
    suggest: Count


class _Point(Settings):
    learning_rate: Positive
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    sides: tuple[Annotated[int, Field(ge=0)], ...] | None = None  # None: all models of the pair

    @property
    def is_coupled(self) -> bool:
        """Whether its dictionary reads two models or more."""
        return self.sides is None or len(self.sides) > 1


class L1Point(_Point):
    method: Literal["l1"]
    reconstruction: Literal["sum_of_squares", "norm"]
    sparsity: Positive
    sparsity_warmup_share: Share


class BatchTopKPoint(_Point):
    method: Literal["batch_topk"]
    k: Count
    auxiliary_weight: Annotated[float, Field(ge=0)]
    stale_after_tokens: Count


Point = Annotated[L1Point | BatchTopKPoint, Field(discriminator="method")]


class Schedule(Settings):
    """How dictionaries learn from a stream. `tokens` and `buffer_tokens` count unmasked tokens."""

    tokens: Count
    batch_tokens: Count
    buffer_tokens: Count
    warmup_share: Share
    decay_share: Share
    gradient_clip: Positive
    checkpoint_minutes: Positive

    @model_validator(mode="after")
    def _buffer_holds_a_batch(self):
        if self.batch_tokens > self.buffer_tokens:
            raise ValueError(f"buffer_tokens ({self.buffer_tokens}) must hold a batch ({self.batch_tokens})")
        return self


class Bank(Schedule):
    """Sweep points trained from one stream of activations."""

    pairs: Annotated[tuple[Name, ...], Field(min_length=1)]
    layers: Layers
    latents: Count
    decoder_norm: Positive
    independent_halves: bool
    points: Annotated[dict[PointName, Point], Field(min_length=1)]

    def seeds(self) -> list[int]:
        """Every seed that some point of the bank asks for."""
        return sorted({seed for point in self.points.values() for seed in point.seeds})

    def points_of(self, seed: int) -> dict[str, L1Point | BatchTopKPoint]:
        return {name: point for name, point in self.points.items() if seed in point.seeds}


# ------------------------------------------------------------------------------------------------ transcoders

READY = "ready"  # stands for the point's name in the paths of transcoders that were not trained here


class TranscoderPoint(Settings):
    """`expansion`: latents per unit of the model's width; at most `k` latents fire on a token."""

    expansion: Count
    k: Count
    learning_rate: Positive


class ReadyTranscoders(Settings):
    """Transcoders in sparsify's format, in a local `folder` or in `repo` of the hub at `revision`.

    Each layer has a folder of its own. `hookpoint` is its name with `{layer}` for the number; null where the
    folders have the names that sparsify gives them (`layers.3.mlp`).
    """

    folder: str | None
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None
    revision: str | None
    hookpoint: Annotated[str, Field(pattern=r"\{layer\}")] | None

    @model_validator(mode="after")
    def _is_in_one_place(self):
        if (self.folder is None) == (self.repo is None):
            raise ValueError("expected either `folder` (local) or `repo` (hub), the other null")
        return self


class TranscodedModel(Settings):
    """A model whose MLPs get transcoders, one for each of `layers`.

    `start_from` names another model of the section whose transcoders (of the same point and seed) these begin as,
    so that latents correspond by index; `ready` takes transcoders from elsewhere in place of training them.
    """

    text: Name
    tokenizer: Name
    layers: Layers
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    start_from: Name | None
    ready: ReadyTranscoders | None

    @model_validator(mode="after")
    def _ready_ones_are_one_set(self):
        if self.ready is not None and self.seeds != (0,):
            raise ValueError(f"`ready` transcoders are one set: `seeds` must be [0], they are {list(self.seeds)}")
        return self


class TranscoderSweep(Settings):
    """The pilot: every point on some layers of one model, each with `tokens` unmasked tokens, judged on at most
    `evaluation_tokens` tokens of the `choose` part."""

    model: Name
    layers: Layers
    tokens: Count
    evaluation_tokens: Count
    seed: Seed


class TranscoderEvaluation(Settings):
    """`tokens` of the `report` part for unexplained variance and sparsity, `spliced_tokens` of them for
    cross-entropy and KL; `linear_tokens` of the `calibrate` part to fit the best linear map on; `problems` that the
    replaced model answers and `shown` of them on the page."""

    tokens: Count
    spliced_tokens: Count
    linear_tokens: Count
    problems: Count
    shown: Annotated[int, Field(ge=0)]
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class Transcoders(Settings):
    """TopK skip transcoders of MLPs. A sweep on pilot layers leads to a choice among `points`, which `point` may
    name instead; all layers of all models are then trained with it. `unqualified` says what happens when no point
    passes the limits in gates.transcoders: stop, or go on with the best of them."""

    trainer: Literal["reasondiff", "sparsify"]
    models: Annotated[dict[Name, TranscodedModel], Field(min_length=1)]
    points: dict[PointName, TranscoderPoint]
    sweep: TranscoderSweep | None
    point: PointName | None
    unqualified: Literal["stop", "best"]
    training: Schedule
    auxiliary_weight: Annotated[float, Field(ge=0)]
    stale_after_tokens: Count
    selection: Literal["float32", "bfloat16"]
    evaluation: TranscoderEvaluation

    def trained(self) -> dict[str, TranscodedModel]:
        """The models whose transcoders are trained here."""
        return {name: model for name, model in self.models.items() if model.ready is None}


# ------------------------------------------------------------------------------------------------ judging


class Evaluation(Settings):
    """`tokens` for explained variance, `spliced_tokens` for CE and KL; `matched_l0` are the L0s at which
    dictionaries are compared; intervals are bootstrapped over problems."""

    tokens: Count
    spliced_tokens: Count
    threshold_tokens: Count
    matched_l0: tuple[Positive, ...]
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class Replication(Settings):
    """When a latent is said to come back in another dictionary: `cosine` of the decoder rows and `correlation` of the
    activations, at least, in every one of `seeds` - 1 others or more."""

    cosine: Share
    correlation: Share
    seeds: Annotated[int, Field(ge=2)]


class Latents(Settings):
    """Cut-offs of docs/methods.md §4. `probe_tokens` are the tokens on which decodability is fitted."""

    tokens: Count
    exclusive_delta: Share
    shared_delta: tuple[Share, Share]
    nu_reconstruction: Positive
    nu_error: Positive
    min_firings: Count
    problem_groups: Annotated[int, Field(ge=10)]
    probe_tokens: Count
    ridge: Positive
    replication: Replication


class Examples(Settings):
    """What each live latent responds to, read from `tokens` tokens of each of the parts `choose` (examples shown to
    a labeller and on the page) and `score` (examples that labels are scored on).

    `strongest` examples per latent and part, at most one of a document; `sampled` firings are drawn uniformly, cut
    into `quantiles` by activation, and `per_quantile` of each are kept. A window has `before` tokens before the
    firing and `after` after it, within its document. `negatives` of each kind, drawn among `pool_windows` windows.
    `logits`: tokens that a decoder direction raises or lowers most, of each.
    """

    tokens: Count
    strongest: Count
    sampled: Count
    quantiles: Annotated[int, Field(ge=2)]
    per_quantile: Count
    before: Annotated[int, Field(ge=0)]
    after: Annotated[int, Field(ge=0)]
    negatives: Annotated[int, Field(ge=0)]
    pool_windows: Count
    logits: Count
    seed: Seed

    @model_validator(mode="after")
    def _sample_fills_the_quantiles(self):
        if self.sampled < self.quantiles * self.per_quantile:
            raise ValueError(
                f"sampled ({self.sampled}) must be at least quantiles x per_quantile "
                f"({self.quantiles * self.per_quantile})"
            )
        return self


class Prices(Settings):
    """Dollars per million tokens. `batch_factor`: share of these prices that a batch request costs."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    batch_factor: Share


class Anthropic(Settings):
    """How Claude is asked. `budget_dollars` is a hard limit on what one study may spend on labels and their scores:
    nothing is sent that could exceed it. `base_url` null: the public service. The key comes from the environment."""

    model: Annotated[str, Field(min_length=1)]
    interface: Literal["messages", "batches"]
    concurrency: Count
    max_tokens: Count
    retries: Annotated[int, Field(ge=0)]
    timeout_seconds: Positive
    poll_seconds: Positive
    prices: Prices
    budget_dollars: Annotated[float, Field(ge=0)]
    base_url: str | None


class LabelScores(Settings):
    """Labels are scored on at most `positives` firing windows of the part `score` and `negatives` silent ones of each
    kind; Claude judges `texts_per_request` at a time. Intervals from `bootstrap` resamples."""

    positives: Count
    negatives: Count
    texts_per_request: Count
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class Labels(Settings):
    """Words for what latents respond to. `provider` is always chosen here: a key in the environment alone spends
    nothing. Labelled are the latents with a page (`pages` of each tag and dictionary, or of each transcoder), those in
    attribution graphs, and `sample` further ones of each dictionary, stratified by tag and firing rate.

    A labeller sees `strongest` and `per_quantile` examples of a latent. `store`: the database of every request ever
    paid, kept outside the results.
    """

    provider: Literal["offline", "anthropic"]
    store: Annotated[str, Field(min_length=1)]
    pages: Count
    sample: Annotated[int, Field(ge=0)]
    strongest: Count
    per_quantile: Annotated[int, Field(ge=0)]
    seed: Seed
    scores: LabelScores
    anthropic: Anthropic


class Concepts(Settings):
    """Concepts known token by token in generated text, and how well single latents tell them: those of transcoders
    and of the crosscoders of `pairs`. Latent and threshold are picked on `tokens` tokens of the part `choose` and
    reported on as many of `score`. A dictionary of the same size on random-weight models, trained on
    `untrained_tokens`, is one of the baselines; `ridge` is the logistic probe's."""

    pairs: tuple[Name, ...]
    tokens: Count
    untrained_tokens: Count
    ridge: Positive
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class TokenizerCheck(Settings):
    documents: Count
    generations: Annotated[int, Field(ge=0)]
    seed: Seed


class TranscoderGates(Settings):
    """Limits of a layer's transcoder, and of all layers replaced at once (docs/methods.md §6). Losses in nats per
    token; `recovered_mean` and `recovered_linear` are the shares of the loss recovered against mean ablation and
    against the best linear map. A layer whose ablation costs under `uninformative_nats` is not judged by them."""

    ce_increase_nats: Positive
    ce_increase_wished_nats: Positive
    recovered_mean: Share
    recovered_linear: Share
    dead_share: Share
    dense_share: Share
    all_layers_ce_increase_nats: Positive
    uninformative_nats: Annotated[float, Field(ge=0)]


class GraphGates(Settings):
    """Limits under which a graph is not called an explanation: `feature_share`, the influence of the last hop that
    latents carry, and `coverage`, the share of blocks that have a transcoder."""

    feature_share: Share
    coverage: Share


class SetEffects(Settings):
    """What sets of `size` latents that are called the reasoning model's own do to its predictions, beside `random_sets`
    sets of others that are alike to within `tolerance`, a share."""

    size: Count
    random_sets: Annotated[int, Field(ge=20)]
    tolerance: Share
    tokens: Count
    bootstrap: Count
    seed: Seed


class Evidence(Settings):
    """Do the latents that are found matter? `effects`: null for no test."""

    effects: SetEffects | None


class Gates(Settings):
    """Thresholds of the quality gates on the page."""

    fve: Share
    dead_share: Share
    dense_share: Share
    spliced_kl_recovered: Share
    foreign_share: Share
    nats_per_byte_gap: Positive
    min_problems: Count
    transcoders: TranscoderGates
    graphs: GraphGates


class Tracking(Settings):
    """Where training metrics go besides the JSON lines file. wandb runs offline unless `mode: online`."""

    kind: Literal["none", "tensorboard", "wandb"]
    project: str
    mode: Literal["offline", "online"]


class Card(Settings):
    """A graphics card as its maker describes it (`memory_gib`, dense matrix rates without sparsity in 10^12 products'
    additions and multiplications a second, `memory_tb_per_second`), and what is assumed of it: the shares of those
    rates that are reached, and the milliseconds that a processor needs to start the kernels of one block."""

    name: str
    memory_gib: Positive
    bfloat16_tflops: Positive
    float32_tflops: Positive
    tf32_tflops: Positive
    memory_tb_per_second: Positive
    bfloat16_share: Annotated[float, Field(gt=0, le=1)]
    float32_share: Annotated[float, Field(gt=0, le=1)]
    memory_share: Annotated[float, Field(gt=0, le=1)]
    block_milliseconds: Annotated[float, Field(ge=0)]


class Cost(Settings):
    """What the study is reckoned to cost rests on; no result depends on it. `card` null: hours are not reckoned.

    `source_rows`: about how many rows the sources of a text have that say `rows: null`, by text; `documents_per_row` of
    problems with several traces; `document_bytes` of one, compressed. `l1_firing`: latents that fire on a token while
    an L1 dictionary learns, on average; `stale_latents`: that have to be revived, on average. `point`: the transcoder
    point that the sweep is taken to choose; null: the largest. A job may take `runtime_factor` times its hours.
    """

    card: Card | None
    source_rows: dict[Name, Count]
    documents_per_row: Count
    document_bytes: Count
    l1_firing: Positive
    stale_latents: Annotated[int, Field(ge=0)]
    point: PointName | None
    runtime_factor: Annotated[float, Field(ge=1)]


class Release(Settings):
    """What `package_release` hands on, and what may be done with it. Licences are the hub's short names of them.

    `licence`: of the dictionaries and tables; null: to be decided, and the cards say so. `licences`: those of models
    and texts by their name in this study; where none is named the cards say to look there. `examples`: whether the
    windows of text on which latents fire go along. `upload`: whether `upload_release` may put them on the hub, under
    `organisation` (null: the account that HF_TOKEN belongs to), visible to its members alone where `private`.
    """

    licence: str | None
    licences: dict[Name, str]
    examples: bool
    upload: bool
    organisation: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")] | None
    private: bool

    @model_validator(mode="after")
    def _uploads_have_a_licence(self):
        if self.upload and self.licence is None:
            raise ValueError("release.upload is true but release.licence is null: say what others may do with it")
        return self


class ReportSettings(Settings):
    title: str
    banner: str | None
    scale: Literal["tiny", "real"]
    ranked_latents: Count


# ------------------------------------------------------------------------------------------------ circuits


class Prompts(Settings):
    """Benchmark prompts and how models answer them: greedily and with `samples` samples at `temperature`.

    `elicitations` says which models answer and how they are asked. Responses of the model `reasoning` are the contexts
    of attribution graphs, on which the model `base` (null: none) is traced as well. `think_target`: the position in
    the think phase whose uncertainty is nearest to the answer's (of contexts at least `think_context_share` as long as
    the answer's, so that the two can be compared), or its middle. `answer_target`: the first token inside
    the last box, or the first after the think phase.
    """

    file: str
    reasoning: Name
    base: Name | None
    elicitations: dict[Name, Literal["direct", "solution", "think"]]
    samples: Annotated[int, Field(ge=0)]
    temperature: Positive
    max_new_tokens: Count
    batch_size: Count
    think_target: Literal["matched_entropy", "middle"]
    think_context_share: Share
    answer_target: Literal["boxed", "first"]
    seed: Seed


class Interventions(Settings):
    """Per graph `features` latents are drawn evenly from `quantiles` of their predicted effect, and `matched` random
    ones alike in layer, activation and position class. Intervals from `bootstrap` resamples, over prompts."""

    features: Annotated[int, Field(ge=0)]
    quantiles: Count
    matched: Annotated[int, Field(ge=0)]
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed


class Links(Settings):
    """A transcoder latent is linked to a crosscoder latent of its layer when their activations correlate by at least
    `min_correlation` on `tokens` tokens of the part `report`; `random_draws` latents of equal firing rate stand beside
    each. `pair` names the pair whose crosscoders are asked, `point` the sweep point."""

    pair: Name
    point: PointName
    min_correlation: Share
    tokens: Annotated[int, Field(ge=10_000)]
    random_draws: Count
    seed: Seed


class Graphs(Settings):
    """Attribution graphs, one per prompt, model and target.

    Latents at the last `window` positions of a context become nodes, earlier ones count as error; of those that fire at
    most `max_features` are attributed (null: all), `batch_size` at a time. `runners_up`: further likely tokens beside
    the target. A file holds the nodes that carry `stored_share` of the influence, at most `stored_nodes` of them; the
    graph that is shown and counted those that carry `prune_nodes` of it, and of their edges those that carry
    `prune_edges`. One job traces up to `prompts_of_job` prompts. `viewer_examples` of each latent are shown.
    """

    window: Count
    max_features: Count | None
    batch_size: Count
    runners_up: Annotated[int, Field(ge=0)]
    stored_share: Share
    stored_nodes: Count
    prune_nodes: Share
    prune_edges: Share
    prompts_of_job: Count
    viewer_examples: Annotated[int, Field(ge=0)]
    labelled: Annotated[int, Field(ge=0)]
    interventions: Interventions
    links: Links | None
    seed: Seed

    @model_validator(mode="after")
    def _what_is_shown_is_stored(self):
        if self.prune_nodes > self.stored_share:
            raise ValueError(f"prune_nodes ({self.prune_nodes}) must not exceed stored_share ({self.stored_share})")
        return self


class MotifSource(Settings):
    """A folder of attribution graphs from elsewhere, in Neuronpedia's JSON."""

    folder: str


NULL_MODELS = (
    "typed", "configuration", "erdos_renyi", "layer_preserving", "layer_pair_config", "layer_pair_config_signs",
)  # fmt: skip
"""Null models of motif counts (docs/methods.md §11): ours first, then the published ones by their names."""


class Motifs(Settings):
    """Motif counts of pruned graphs beside null models.

    `thresholds` are couples of node and edge shares, the first being the one that is reported; `max_gap` the largest
    distance in layers of an edge in a signed template. `samples` graphs are drawn from the null `typed` for what is
    reported, `samples_beside` from the other `nulls` and at the other thresholds, by `chains` chains that offer each
    edge `swaps_per_edge` times for exchange between two of them; with fewer than `min_states` distinct counts no z is
    given. `sources` are folders of graphs from elsewhere. Intervals from `bootstrap` resamples, over prompts.
    """

    thresholds: Annotated[tuple[tuple[Share, Share], ...], Field(min_length=1)]
    max_gap: Count
    nulls: Annotated[tuple[Literal[NULL_MODELS], ...], Field(min_length=1)]
    samples: Annotated[int, Field(ge=19)]
    samples_beside: Annotated[int, Field(ge=19)]
    chains: Count
    swaps_per_edge: Count
    min_states: Annotated[int, Field(ge=2)]
    sources: dict[PointName, MotifSource]
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed

    @model_validator(mode="after")
    def _ours_is_among_the_nulls(self):
        if "typed" not in self.nulls:
            raise ValueError(f"nulls must hold 'typed', on which every comparison rests; they are {list(self.nulls)}")
        return self


class Comparisons(Settings):
    """Comparisons of graphs. `published` names a source of motifs.sources (null: none given). Fewer than `min_prompts`
    prompts, or `min_samples` sampled responses for correct against incorrect: not testable. Couples of think and answer
    targets differ by at most the factor `length_caliper` in context length and by `entropy_caliper` nats.
    `false_discovery_rate` is the share of false findings that is accepted; `permutations` of labels, `bootstrap`
    resamples over prompts."""

    published: PointName | None
    min_prompts: Count
    min_samples: Count
    length_caliper: Annotated[float, Field(ge=1)]
    entropy_caliper: Positive
    permutations: Annotated[int, Field(ge=99)]
    bootstrap: Annotated[int, Field(ge=100)]
    false_discovery_rate: Share
    seed: Seed


# ------------------------------------------------------------------------------------------------ study


class Study(Settings):
    """A whole study. `memory_gib` is what one training job may take of the device's memory; null: what is free.
    `revisions`: the file that names the commit of each hub repository whose `revision` is null here; `unpinned` says
    what happens where neither names one: refuse, or take whatever the hub has today."""

    study: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    results_dir: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    memory_gib: Positive | None
    revisions: str | None
    unpinned: Literal["refuse", "allow"]
    split: Split
    tokenizers: Annotated[dict[Name, Tokenizer], Field(min_length=1)]
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    accuracy: Accuracy
    text: Annotated[dict[Name, Text], Field(min_length=1)]
    stream: Stream
    tokenizer_check: TokenizerCheck
    pairs: Annotated[dict[Name, Pair], Field(min_length=1)]
    divergence: Divergence
    banks: dict[PointName, Bank]
    transcoders: Transcoders | None
    evaluation: Evaluation
    latents: Latents
    examples: Examples
    labels: Labels
    concepts: Concepts | None
    prompts: Prompts | None
    graphs: Graphs | None
    motifs: Motifs | None
    comparisons: Comparisons | None
    evidence: Evidence
    gates: Gates
    tracking: Tracking
    cost: Cost
    release: Release
    report: ReportSettings

    @model_validator(mode="after")
    def _is_consistent(self):
        for check in (
            _parents_exist,
            _tokenizers_exist,
            _pairs_name_known_things,
            _banks_name_known_things,
            _points_are_unique,
            _transcoders_name_known_things,
            _transcoders_start_from_transcoders,
            _transcoders_have_a_point,
            _labels_find_their_examples,
            _concepts_are_of_generated_text,
            _prompts_name_known_things,
            _graphs_have_what_they_need,
            _comparisons_name_known_things,
            _costs_name_known_things,
            _licences_name_known_things,
            _results_do_not_mix,
        ):
            check(self)
        return self


def _known(what: str, name: str, names: Any) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, list(names), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} names {name!r}, which is not among {', '.join(sorted(names)) or 'none'}.{hint}")


def _parents_exist(study: Study) -> None:
    for name, model in study.models.items():
        seen = [name]
        while (parent := getattr(study.models[seen[-1]], "parent", None)) is not None:
            _known(f"models.{seen[-1]}.parent", parent, study.models)
            if parent in seen:
                raise ValueError(f"models: {' -> '.join([*seen, parent])} is a circle; a chain needs a first model")
            seen.append(parent)
        if hasattr(model, "parent") and not is_trained(study.models[model.parent]):
            raise ValueError(f"models.{name}.parent must be a stage of the chain, not a {model.stage} of a ready model")


def _tokenizers_exist(study: Study) -> None:
    for name, tokenizer in study.tokenizers.items():
        if tokenizer.source == "model":
            _known(f"tokenizers.{name}.model", tokenizer.model, study.models)
    for name, model in study.models.items():
        if model.stage == "pretrain":
            _known(f"models.{name}.tokenizer", model.tokenizer, study.tokenizers)
            if study.tokenizers[model.tokenizer].source != "train":
                raise ValueError(f"models.{name}.tokenizer must be a tokenizer with `source: train`")


def _pairs_name_known_things(study: Study) -> None:
    for name, pair in study.pairs.items():
        for model in pair.models:
            _known(f"pairs.{name}.models", model, study.models)
        for text in pair.texts:
            _known(f"pairs.{name}.texts", text, study.text)
        _known(f"pairs.{name}.tokenizer", pair.tokenizer, study.tokenizers)
        if pair.control is not None:
            _known(f"pairs.{name}.control", pair.control, study.pairs)
        if "training" in pair.nulls:
            raise ValueError(f"pairs.{name}.nulls.training is what `control` names; give this null another name")
        for kind, null in pair.nulls.items():
            _known(f"pairs.{name}.nulls.{kind}", null, study.pairs)
            if study.pairs[null].role != "control":
                raise ValueError(
                    f"pairs.{name}.nulls.{kind} is pair {null!r}, whose role is {study.pairs[null].role}: "
                    "expected a pair with `role: control`"
                )


def _banks_name_known_things(study: Study) -> None:
    for name, bank in study.banks.items():
        for pair in bank.pairs:
            _known(f"banks.{name}.pairs", pair, study.pairs)
            for layer in bank.layers:
                _layer_exists(study, f"banks.{name}.layers", study.pairs[pair], layer)
            for point_name, point in bank.points.items():
                sides = point.sides or ()
                if any(side >= len(study.pairs[pair].models) for side in sides):
                    raise ValueError(
                        f"banks.{name}.points.{point_name}.sides is {list(sides)}, but pair {pair!r} has "
                        f"{len(study.pairs[pair].models)} models (sides count from 0)"
                    )
                if getattr(point, "k", 0) > bank.latents:
                    raise ValueError(f"banks.{name}.points.{point_name}.k ({point.k}) exceeds latents ({bank.latents})")


def _layer_exists(study: Study, key: str, pair: Pair, layer: int) -> None:
    for name in pair.models:
        _model_has_layers(study, key, name, [layer])


def _model_has_layers(study: Study, key: str, model: str, layers: Sequence[int]) -> None:
    architecture = size_of(study, model)
    if architecture is not None and max(layers) >= architecture.layers:
        raise ValueError(
            f"{key} has layer {max(layers)}, but model {model!r} has {architecture.layers} layers "
            f"(0 to {architecture.layers - 1})"
        )


def size_of(study: Study, model: str) -> Architecture | ModelSize | None:
    """The sizes of a model of the tiny chain, or those that the study declares for one from elsewhere; None where it
    declares none."""
    first = first_stage(study, model)
    return first.architecture if first.stage == "pretrain" else first.size


def first_stage(study: Study, model: str) -> Any:
    """The stage that a model's chain begins with: its own settings where it has no parent."""
    settings = study.models[model]
    while hasattr(settings, "parent"):
        settings = study.models[settings.parent]
    return settings


def width_of(study: Study, model: str) -> int | None:
    """How wide a model is, as far as the study says it."""
    size = size_of(study, model)
    return size.hidden if size else None


def _points_are_unique(study: Study) -> None:
    seen: dict[tuple, str] = {}
    for bank_name, bank in study.banks.items():
        for pair in bank.pairs:
            for point in bank.points:
                if (pair, point) in seen and seen[pair, point] != bank_name:
                    raise ValueError(
                        f"banks.{bank_name}.points.{point} has the name of a point of bank {seen[pair, point]!r}: "
                        "point names are part of the file paths and must differ across banks"
                    )
                seen[pair, point] = bank_name


def _transcoders_name_known_things(study: Study) -> None:
    section = study.transcoders
    for name, model in section.models.items() if section else ():
        key = f"transcoders.models.{name}"
        _known("transcoders.models", name, study.models)
        _known(f"{key}.text", model.text, study.text)
        _known(f"{key}.tokenizer", model.tokenizer, study.tokenizers)
        _model_has_layers(study, f"{key}.layers", name, model.layers)
    if section and section.sweep:
        _known("transcoders.sweep.model", section.sweep.model, section.models)
        _model_has_layers(study, "transcoders.sweep.layers", section.sweep.model, section.sweep.layers)


def _transcoders_start_from_transcoders(study: Study) -> None:
    section = study.transcoders
    for name, model in section.models.items() if section else ():
        key, start = f"transcoders.models.{name}.start_from", model.start_from
        if start is None:
            continue
        _known(key, start, section.models)
        if section.trainer == "sparsify":
            raise ValueError(f"{key}: sparsify's trainer starts from random weights; `trainer: reasondiff` can do this")
        first = section.models[start]
        if model.ready or first.ready or first.start_from is not None:
            raise ValueError(f"{key}: both must be trained here, and {start!r} must itself start from nothing (null)")
        if missing := set(model.layers) - set(first.layers):
            raise ValueError(f"{key}: {start!r} has no transcoder of layer(s) {sorted(missing)}")
        if missing := set(model.seeds) - set(first.seeds):
            raise ValueError(f"{key}: {start!r} is not trained with seed(s) {sorted(missing)}")


def _transcoders_have_a_point(study: Study) -> None:
    section = study.transcoders
    if section is None:
        return
    if READY in section.points:
        raise ValueError(
            f"transcoders.points: {READY!r} is kept for transcoders trained elsewhere; choose another name"
        )
    if section.point is not None:
        _known("transcoders.point", section.point, section.points)
    elif section.trained() and section.sweep is None:
        raise ValueError("transcoders: without a `sweep` the `point` to train must be named")
    for name, model in section.models.items():
        width = width_of(study, name)
        for point_name, point in section.points.items() if width and model.ready is None else ():
            if point.k > point.expansion * width:
                raise ValueError(
                    f"transcoders.points.{point_name}.k ({point.k}) exceeds the {point.expansion * width} latents "
                    f"that an expansion of {point.expansion} gives model {name!r} (width {width})"
                )


def _labels_find_their_examples(study: Study) -> None:
    labels, examples = study.labels, study.examples
    for key in ("strongest", "per_quantile"):
        if getattr(labels, key) > getattr(examples, key):
            raise ValueError(
                f"labels.{key} ({getattr(labels, key)}) exceeds examples.{key} ({getattr(examples, key)}): a labeller "
                "can only be shown what is collected"
            )
    if labels.scores.negatives > examples.negatives:
        raise ValueError(
            f"labels.scores.negatives ({labels.scores.negatives}) exceeds examples.negatives ({examples.negatives})"
        )


def _concepts_are_of_generated_text(study: Study) -> None:
    if study.concepts is None:
        return
    for pair in study.concepts.pairs:
        _known("concepts.pairs", pair, study.pairs)
    for name, text in study.text.items():
        if not any(source.kind == "generated" for source in text.sources.values()):
            raise ValueError(
                f"concepts: text {name!r} has no generated source, and only in generated text is it known token by "
                "token what is what; set `concepts: null`"
            )


def _prompts_name_known_things(study: Study) -> None:
    prompts = study.prompts
    if prompts is None:
        return
    for name in prompts.elicitations:
        _known("prompts.elicitations", name, study.models)
    for key in ("reasoning", "base"):
        name = getattr(prompts, key)
        if name is not None:
            _known(f"prompts.{key}", name, prompts.elicitations)
    if prompts.elicitations[prompts.reasoning] != "think":
        raise ValueError(
            f"prompts.elicitations.{prompts.reasoning} must be `think`: graphs are traced on its think phase; it is "
            f"{prompts.elicitations[prompts.reasoning]!r}"
        )
    if prompts.base == prompts.reasoning:
        raise ValueError(f"prompts.base and prompts.reasoning are both {prompts.base!r}: nothing could differ")


def _graphs_have_what_they_need(study: Study) -> None:
    if study.graphs is None:
        return
    for key in ("prompts", "transcoders"):
        if getattr(study, key) is None:
            raise ValueError(f"graphs: needs the section `{key}`, which is null")
    for name in filter(None, (study.prompts.reasoning, study.prompts.base)):
        _known("graphs: prompts.reasoning and prompts.base must have transcoders; transcoders.models", name,
               study.transcoders.models)  # fmt: skip
    links = study.graphs.links
    if links is None:
        return
    _known("graphs.links.pair", links.pair, study.pairs)
    banks = [bank for bank in study.banks.values() if links.pair in bank.pairs]
    _known("graphs.links.point", links.point, {point for bank in banks for point in bank.points})


def _comparisons_name_known_things(study: Study) -> None:
    if study.comparisons is None:
        return
    for key in ("prompts", "graphs", "motifs"):
        if getattr(study, key) is None:
            raise ValueError(f"comparisons: needs the section `{key}`, which is null")
    if study.comparisons.published is not None:
        _known("comparisons.published", study.comparisons.published, study.motifs.sources)


def _licences_name_known_things(study: Study) -> None:
    for name in study.release.licences:
        _known("release.licences", name, {**study.models, **study.text})


def _costs_name_known_things(study: Study) -> None:
    for name in study.cost.source_rows:
        _known("cost.source_rows", name, study.text)
    if study.cost.point is not None:
        _known("cost.point", study.cost.point, study.transcoders.points if study.transcoders else ())


def _results_do_not_mix(study: Study) -> None:
    expected = "results" if study.study == "tiny" else f"results/{study.study}"
    if study.results_dir.rstrip("/").split("/")[-1] != expected.split("/")[-1]:
        raise ValueError(
            f"results_dir must end in {expected.split('/')[-1]!r} for study {study.study!r} (usually {expected!r}), "
            f"so that studies do not mix; it is {study.results_dir!r}"
        )


def is_trained(model: Any) -> bool:
    """Whether the workflow makes this model itself (a stage of the tiny chain)."""
    return model.stage in ("pretrain", "continue", "finetune", "reinforce", "reparametrise")


def load_study(config: Mapping[str, Any]) -> Study:
    """The checked study.

    Raises:
        ConfigError: for each fault the key, what was expected and what came.
    """
    try:
        return Study.model_validate(dict(config))
    except ValidationError as error:
        lines = [_explain(fault) for fault in error.errors()]
    raise ConfigError("the configuration cannot be used:\n" + "\n".join(f"  - {line}" for line in lines))


def _explain(fault: Mapping[str, Any]) -> str:
    """`banks.main.points.btk24.k: expected ..., came ...`."""
    key = ".".join(str(part) for part in _without_union_labels(fault["loc"])) or "study"
    context = fault.get("ctx", {})
    came = repr(fault.get("input"))
    came = came if len(came) <= 80 else came[:77] + "..."
    match fault["type"]:
        case "extra_forbidden":
            return f"{key}: no such key. Check the spelling against config/config.yaml, which has every key."
        case "missing":
            return f"{key}: missing. config/config.yaml shows it with its unit."
        case "union_tag_not_found":
            kind = context["discriminator"].strip("'")
            return f"{key}.{kind}: missing. config/config.yaml shows it."
        case "union_tag_invalid":
            kind = context["discriminator"].strip("'")
            return f"{key}.{kind}: expected: one of {context['expected_tags']}; came: {context['tag']!r}"
        case "value_error":
            return f"{key}: {fault['msg'].removeprefix('Value error, ')}" if key != "study" else fault["msg"][13:]
        case _:
            return f"{key}: expected: {fault['msg']}; came: {came} ({type(fault.get('input')).__name__})"


def _without_union_labels(location: tuple) -> list:
    """Pydantic adds the chosen class of a union (`pretrain`, `batch_topk`) to the path, and `[key]` where a name
    itself is at fault; the YAML has no such keys."""
    labels = {
        *("pretrain", "continue", "finetune", "reinforce", "local", "hub", "train", "model", "l1", "batch_topk"),
        *("generated", "generated_plain", "files", "plain_files"),
    }
    unions = {"models": 2, "tokenizers": 2, "sources": 2, "points": 2}
    kept: list = []
    for index, part in enumerate(location):
        before = location[index - 2] if index >= 2 else None
        if (before in unions and part in labels) or part == "[key]":
            continue
        kept.append(part)
    return kept
