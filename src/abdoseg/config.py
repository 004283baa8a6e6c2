"""What a training run is: one frozen configuration, and the presets to start from."""

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from abdoseg.augmentation.intensity import IntensitySettings
from abdoseg.errors import ConfigError, unknown_name
from abdoseg.methods import METHODS, OWN_SETTINGS
from abdoseg.networks import NETWORKS
from abdoseg.sampling import SAMPLERS
from abdoseg.value_errors import faults_of
from abdoseg.views import FULL_VIEW

CHANGEABLE = {
    *("preset", "validate_every", "validate_cases", "accumulate", "checkpointing", "compile", "workers", "cache_mb"),
    *("device_cache_mb", "loader_timeout_seconds", "log_every", "checkpoint_seconds", "passes_per_structure"),
}
"""Settings that an unfinished run may go on with in another way: the same weights follow, but for rounding."""


MAX_SIDE = 1024
"""Voxels of a patch's side: 2 m at 2 mm, longer than any scan."""


class TrainConfig(BaseModel):
    """A training run; equal configurations on equal cases give equal weights (on one CPU, bit for bit)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: str = Field(default="paper", description="where the other values come from")
    network: str = Field(default="transunet3d", description="see `abdoseg list networks`")
    method: str = Field(default="self_disambiguation", description="see `abdoseg list methods`")
    sampler: str = Field(default="cmd", description="see `abdoseg list samplers`")
    view: str = Field(default=FULL_VIEW, description="sparse view of the training cases")
    sources: tuple[str, ...] = Field(default=(), description="sources to learn from; empty: all")
    steps: int = Field(default=200_000, gt=0, description="optimiser steps")
    batch: int = Field(default=8, gt=0, le=65_536, description="patches a step")
    patch: tuple[int, int, int] = Field(default=(112, 112, 112), description="patch sides in voxels")
    learning_rate: float = Field(default=1e-3, gt=0, le=1e37, description="AdamW's, at the first step")
    weight_decay: float = Field(default=1e-5, ge=0, le=1e37, description="AdamW's")
    decay_power: float = Field(default=0.9, ge=0, le=1e3, description="learning rate falls as (1 - step/steps)^power")
    rotation_degrees: float = Field(default=15.0, ge=0, le=180, description="uniform about each axis")
    scale: tuple[float, float] = Field(default=(0.9, 1.1), description="isotropic scale, uniform")
    flip: tuple[float, float, float] = Field(
        default=(0.0, 0.0, 0.0), description="probability of a flip along X, Y, Z; along X it swaps right and left"
    )
    intensity: IntensitySettings = Field(
        default=IntensitySettings(),
        description="noise, blur, brightness, low resolution, gamma: all off",
    )
    entropy_weight: float = Field(default=1.0, ge=0, le=1e37, description="lambda of an annotated patch")
    entropy_weight_unannotated: float = Field(
        default=3.0, ge=0, le=1e37, description="lambda of a patch without annotation"
    )
    entropy_ramp: float = Field(default=0.0, ge=0, le=1, description="part of the steps in which lambda grows from 0")
    dice_over: Literal["annotated", "present"] = Field(
        default="annotated", description="classes the dice averages; present: only those in the group (authors' code)"
    )
    reduction: Literal["group", "volume"] = Field(
        default="group", description="volume: all groups with the same annotated structures count as one"
    )
    clamp: float = Field(default=0.0, ge=0, lt=0.5, description="least probability in the loss (authors: 1e-6)")
    unannotated_when: Literal["no_group", "no_label"] = Field(
        default="no_group", description="no_label: lambda of unannotated patches where no voxel is labelled (authors)"
    )
    tasks_per_step: int = Field(default=0, ge=0, description="dodnet, clip_driven: structures a patch and step; 0: all")
    dice_smooth: Literal["both", "denominator"] = Field(
        default="both", description="sigmoid, dodnet, clip_driven: denominator: an absent structure costs 1 (DoDNet)"
    )
    passes_per_structure: bool = Field(
        default=False, description="dodnet, clip_driven: predict with a pass for each structure, as published"
    )
    text_embeddings: str = Field(
        default="learned",
        description="clip_driven: learned, clip, auto, a file with a row a structure, or a folder of CLIP",
    )
    confidence: float = Field(
        default=0.9, ge=0, le=1, description="pseudo_label: least probability of a label that is taken over"
    )
    decoder_per_source: bool = Field(default=False, description="multi_head: a whole decoder for each source")
    padding: Literal["outside", "background"] = Field(
        default="outside", description="background: voxels outside the scan count as background (authors)"
    )
    annotated_from: Literal["card", "labels"] = Field(
        default="card", description="labels: a case annotates only what its labels hold (authors)"
    )
    structure_weights: dict[str, float] = Field(default={}, description="how often a structure is drawn; others 1")
    source_weights: dict[str, float] = Field(default={}, description="how often a source is drawn; others 1")
    mix: dict[str, float] = Field(
        default={}, description="share of partial, sparse and unlabelled cases, drawn first; empty: no such draw"
    )
    learning_rate_every: int = Field(default=1, gt=0, description="steps between its changes (authors: 1000)")
    clip_gradient_norm: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0: any")
    average_decay: float = Field(
        default=0.0, ge=0, lt=1, description="of an exponential moving average of the weights (EMA); 0: none"
    )
    precision: Literal["float32", "bf16", "fp16", "float64"] = Field(
        default="float32", description="bf16 and fp16: mixed precision (AMP)"
    )
    channels_last: bool = Field(default=False, description="memory layout of weights and images")
    start_from: str | None = Field(
        default=None, description="run whose weights to start from; with pseudo_label, the run that labels"
    )
    final_weights: Literal["last", "best"] = Field(
        default="last", description="which become the model: those of the last step, or of the best validation"
    )
    seed: int = Field(default=0, ge=0, lt=2**64, description="of weights, sampling and augmentation")
    fold: tuple[int, int] | None = Field(default=None, description="(k, n): fold k of n, 1-based, is held out")
    validate_every: int = Field(default=0, ge=0, description="steps between validations; 0: never")
    validate_cases: int = Field(default=0, ge=0, description="validation cases used for it; 0: all")
    accumulate: int = Field(default=1, gt=0, description="forward passes a process shares its part of a batch among")
    checkpointing: bool = Field(default=False, description="recompute activations: less memory, more time")
    compile: bool = Field(default=False, description="torch.compile")
    workers: int = Field(default=0, ge=0, le=256, description="threads that cut patches; 0: chosen for the machine")
    cache_mb: int = Field(default=0, ge=0, description="main memory for cases drawn again, MB a process")
    device_cache_mb: int = Field(default=0, ge=0, description="memory of the GPU for cases: patches are cut there")
    loader_timeout_seconds: float = Field(default=50.0, gt=0, le=86_400, description="longest wait for a patch")
    log_every: int = Field(default=20, gt=0, description="steps a line of metrics.jsonl")
    checkpoint_seconds: float = Field(default=120.0, ge=0, description="time between checkpoints")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic would take true for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            msg = f"found {str(value).lower()}, expected a value that is not true or false"
            raise ValueError(msg)
        return value

    @field_validator("network")
    @classmethod
    def _network(cls, name: str) -> str:
        return _known("network", name, list(NETWORKS))

    @field_validator("method")
    @classmethod
    def _method(cls, name: str) -> str:
        return _known("method", name, list(METHODS))

    @field_validator("sampler")
    @classmethod
    def _sampler(cls, name: str) -> str:
        return _known("sampler", name, list(SAMPLERS))

    @field_validator("flip")
    @classmethod
    def _flip(cls, probability: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(0 <= p <= 1 for p in probability):
            msg = f"found {probability}, expected three probabilities"
            raise ValueError(msg)
        return probability

    @field_validator("structure_weights", "source_weights", "mix")
    @classmethod
    def _weights(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                msg = f"found {weight} for {name}, expected a number of at least 0"
                raise ValueError(msg)
        return dict(sorted(weights.items()))

    @model_validator(mode="after")
    def _settings_fit_together(self) -> "TrainConfig":
        if self.batch % self.accumulate:
            msg = f"batch {self.batch}: cannot be shared evenly by accumulate = {self.accumulate} passes"
            raise ValueError(msg)
        stray = {name for name in OWN_SETTINGS & self.model_fields_set if getattr(self, name) != _default(name)}
        stray -= set(METHODS[self.method].settings)
        if stray:
            msg = f"{', '.join(sorted(stray))}: means nothing to method {self.method}; leave it out"
            raise ValueError(msg)
        if METHODS[self.method].needs_teacher and self.start_from is None:
            msg = f"method {self.method}: needs a finished run that labels the training cases; name it by --from"
            raise ValueError(msg)
        if self.final_weights == "best" and not self.validate_every:
            raise ValueError("final_weights best: needs validation; set validate_every")
        return self

    @field_validator("scale")
    @classmethod
    def _scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            msg = f"found {scale}, expected 0 < low <= high"
            raise ValueError(msg)
        return scale

    @field_validator("patch")
    @classmethod
    def _patch(cls, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        if not 8 <= min(patch) <= max(patch) <= MAX_SIDE:
            msg = f"found {patch}, expected sides of at least 8 and at most {MAX_SIDE} voxels"
            raise ValueError(msg)
        return patch

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of optimiser step ``step`` (0-based)."""
        changed = step - step % self.learning_rate_every
        return float(self.learning_rate * (1 - changed / self.steps) ** self.decay_power)

    def validates_after(self, done: int) -> bool:
        """Whether a validation follows once ``done`` steps are done: every so often, and at the end."""
        return self.validate_every > 0 and (done % self.validate_every == 0 or done == self.steps)

    def entropy_factor_at(self, step: int) -> float:
        """Return the factor in [0, 1] on both entropy weights at ``step``: 1 everywhere without a ramp."""
        ramp = self.entropy_ramp * self.steps
        return min(1.0, step / ramp) if ramp > 0 else 1.0

    def digest(self) -> str:
        """Return a hash of what makes the run another one; settings of :data:`CHANGEABLE` do not."""
        # Which weights are the best depends on when and on what they are validated.
        of_validation = {"validate_every", "validate_cases"} if self.final_weights == "best" else set[str]()
        facts = self.model_dump_json(exclude=CHANGEABLE - of_validation, exclude_defaults=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]


def share(rank: int, size: int, batch: int) -> range:
    """Return the numbers within a batch that are a process's.

    Raises
    ------
    ConfigError
        If the batch cannot be shared evenly: the mean over examples would not be the mean over processes.
    """
    if batch % size:
        raise ConfigError(
            f"batch {batch}: cannot be shared by {size} processes; choose a multiple with --set batch=..."
        )
    each = batch // size
    return range(rank * each, (rank + 1) * each)


def check_shares(config: TrainConfig, processes: int) -> None:
    """Raise ConfigError if a batch cannot be shared evenly by the processes and their passes."""
    each = len(share(0, processes, config.batch))
    if each % config.accumulate:
        msg = f"accumulate {config.accumulate}: cannot share the {each} patches a process has of each batch evenly"
        raise ConfigError(msg)


# What short trainings need, and how it was found: docs/annotation.md.
_SHORT: dict[str, Any] = {
    "network": "unet_small",
    "batch": 2,
    "learning_rate": 1e-2,
    "entropy_weight": 0.1,
    "entropy_weight_unannotated": 0.3,
    "entropy_ramp": 1.0,
    "dice_over": "present",
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"validate_every": 5000},
    "small": {**_SHORT, "steps": 600, "patch": (64, 64, 64), "validate_every": 300, "validate_cases": 2},
    "demo": {**_SHORT, "steps": 5000, "patch": (48, 48, 48), "rotation_degrees": 7.5, "scale": (0.95, 1.05)},
}
"""Preset -> the values in which it differs from the paper's."""

PRESET_TITLES = {
    "paper": "the paper's settings: 200,000 steps of 8 patches of 112^3; for GPUs",
    "small": "a first look on a CPU in minutes: small network, 64^3 patches, 600 steps",
    "demo": "what `abdoseg demo` trains on phantoms at a coarse grid",
}


def make_config(preset: str, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Return a preset's configuration with some values replaced.

    Raises
    ------
    UnknownNameError
        If there is no such preset, or an override is no setting.
    ConfigError
        If a value is not allowed; all faults are told at once.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, list(PRESETS))
    overrides = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key in overrides:
        if key not in TrainConfig.model_fields:
            raise unknown_name("setting", key, list(TrainConfig.model_fields))
    return parse_config({"preset": preset, **PRESETS[preset], **overrides}, "configuration")


def parse_config(facts: dict[str, Any], where: str) -> TrainConfig:
    """Return the configuration written in ``facts``; ``where`` names their origin in errors."""
    try:
        return TrainConfig.model_validate(facts)
    except ValidationError as error:
        raise ConfigError(f"{where}: {faults_of(error)}") from error


def _default(name: str) -> object:
    return TrainConfig.model_fields[name].default


def _known(kind: str, name: str, known: list[str]) -> str:
    if name not in known:
        # Pydantic turns only ValueErrors into faults of a field.
        raise ValueError(str(unknown_name(kind, name, known)))
    return name
