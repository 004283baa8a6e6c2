"""The training loop: a plain function, to be read in one sitting."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from abdoseg.config import TrainConfig
from abdoseg.engine.precision import autocast
from abdoseg.engine.ranks import Ranks
from abdoseg.engine.state import TrainState, Validation
from abdoseg.errors import RunError, one_line
from abdoseg.interrupts import deferred_interrupts
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch


@dataclass(frozen=True, eq=False)
class Share:
    """One process's part of one step's batch.

    Parameters
    ----------
    parts
        One or more (accumulated) pieces of equal size, on the device.
    cases
        ``source/case`` of each example, for messages.
    """

    parts: tuple[TorchBatch, ...]
    cases: tuple[str, ...]


class Keeper(Protocol):
    """Where a training's files go."""

    def save(self, state: TrainState) -> None:
        """Save the state to resume from."""

    def save_best(self, state: TrainState) -> None:
        """Save the weights of the best validation."""

    def save_broken(self, state: TrainState, share: Share, rank: int) -> str:
        """Save a batch whose loss or gradient is not finite, with the weights; return where."""
        ...


class Watcher(Protocol):
    """Who is told how the training goes."""

    def step(self, step: int, values: dict[str, float]) -> None:
        """Hear of one step."""

    def validation(self, done: Validation, best: Validation | None) -> None:
        """Hear of a validation, and of the best so far."""


Validate = Callable[[nn.Module, Callable[[], bool]], float | None]
"""``(network, asked to stop?) -> mean DSC`` in per cent on validation cases; ``None`` if it was stopped.

Called in every process; returns the same in each.
"""


def fit(
    state: TrainState,
    shares: Iterable[Share],
    method: Method,
    config: TrainConfig,
    ranks: Ranks,
    *,
    keeper: Keeper,
    watcher: Watcher,
    validate: Validate | None = None,
) -> None:
    """Train on every share in turn; save at the end, every so often, and when interrupted.

    Parameters
    ----------
    state
        Changed in place; its step says which share comes first.
    shares
        One for each step still to do; the same number in every process.
    method
        Its loss, and what the model is called with.
    config
        Learning rate, entropy ramp, precision, clipping, how often to validate and save.
    ranks
        The processes; with several, gradients are averaged and all stop at the same step.
    keeper, watcher
        Files (used by the first process alone, but for broken batches) and progress.
    validate
        What scores the weights now and then; one that a signal cut short is done again by the next call.

    Raises
    ------
    RunError
        If a loss or gradient is not finite, or memory does not suffice.
    KeyboardInterrupt
        After a signal (Ctrl-C, SIGTERM, SIGUSR1) to any process, between two steps or windows of a validation, the
        state saved.
    """
    network = _ready_to_run(state.network, config, ranks)
    saved_at = time.monotonic()
    with deferred_interrupts() as asked_to_stop:
        # One that a signal cut short.
        _validate_if_due(state, validate, config, asked_to_stop, ranks, keeper=keeper, watcher=watcher)
        for share in shares:
            for group in state.optimiser.param_groups:
                group["lr"] = config.learning_rate_at(state.step)
            with ranks.others_may_be_gone():
                values = _accumulate_gradients(network, state, share, method, config)
            *means, asked = ranks.mean([*values, float(asked_to_stop())])
            try:
                norm = _update(state, config, means[0])
            except NotFiniteError as error:
                raise _broken(state, share, ranks, keeper) from error
            watcher.step(state.step, dict(zip(("loss", *method.terms, "gradient_norm"), (*means, norm), strict=True)))
            # Several processes stop at the step in which all have heard of it; one need not wait for another step.
            stop = asked > 0 or (asked_to_stop() and not ranks.several)
            due = time.monotonic() - saved_at > config.checkpoint_seconds
            # A validation may take longer than who sent a signal waits: what was learnt before is saved before.
            if (due or stop or _validation_is_due(state, config)) and ranks.first:
                keeper.save(state)
                saved_at = time.monotonic()
            if stop:
                raise KeyboardInterrupt
            _validate_if_due(state, validate, config, asked_to_stop, ranks, keeper=keeper, watcher=watcher)
    if ranks.first:
        keeper.save(state)


def _ready_to_run(network: nn.Module, config: TrainConfig, ranks: Ranks) -> nn.Module:
    """Return the network as training calls it: with averaged gradients, compiled."""
    ready: Any = network
    if ranks.several:
        _restride_pointwise(network)
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        ready = nn.parallel.DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)
    return cast("nn.Module", torch.compile(ready) if config.compile else ready)


def _restride_pointwise(network: nn.Module) -> None:
    """Give 1^3 kernels the strides that their gradients have.

    In a channels-last network theirs differ where it does not matter, along sides of one voxel; DDP warns all the same.
    """
    for parameter in network.parameters():
        if parameter.ndim == 5 and parameter.shape[2:].numel() == 1:
            parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device).copy_(
                parameter.data
            )


def _accumulate_gradients(
    network: nn.Module, state: TrainState, share: Share, method: Method, config: TrainConfig
) -> list[float]:
    """Leave the mean gradient of the share's parts in the parameters; return the mean terms of the loss."""
    state.optimiser.zero_grad(set_to_none=True)
    settings = loss_settings(config, state.step)
    sums: Tensor | None = None
    for i, part in enumerate(share.parts):
        # Gradients of several processes are averaged once, with the last part.
        last = i == len(share.parts) - 1
        with _no_sync(network, last=last):
            try:
                parts = _forward(network, part, method, settings, config)
                torch.autograd.backward(state.scaler.scale(parts.total / len(share.parts)))
            except torch.OutOfMemoryError as error:
                raise RunError(_too_large(config, part.image)) from error
            except RuntimeError as error:
                if not _is_the_compilers(error):
                    raise
                raise RunError(f"--set compile=true: {one_line(str(error))[:300]}; leave it out") from error
        terms = torch.stack([term.detach().double() for term in (parts.total, *parts.terms)])
        sums = terms if sums is None else sums + terms
    assert sums is not None  # a share has at least one part
    return [float(value) for value in (sums / len(share.parts)).cpu()]


def _no_sync(network: Any, *, last: bool) -> AbstractContextManager[object]:
    """Return the context in which gradients stay this process's own, but for the last part."""
    return nullcontext() if last or not hasattr(network, "no_sync") else network.no_sync()


def _is_the_compilers(error: RuntimeError) -> bool:
    """Whether torch.compile failed; by name, as loading its errors' classes takes seconds."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _forward(
    network: nn.Module, part: TorchBatch, method: Method, settings: LossSettings, config: TrainConfig
) -> LossParts:
    with autocast(config.precision, part.image.device):
        outputs = network(*method.inputs(part))
    return method.loss(outputs, part, settings)


def loss_settings(config: TrainConfig, step: int) -> LossSettings:
    """Return what the loss is told at a step: the configuration's settings, the entropy's ramp included."""
    ramp = config.entropy_factor_at(step)
    return LossSettings(
        entropy_weight=config.entropy_weight * ramp,
        entropy_weight_unannotated=config.entropy_weight_unannotated * ramp,
        dice_over=config.dice_over,
        reduction=config.reduction,
        clamp=config.clamp,
        unannotated_when=config.unannotated_when,
        tasks_per_step=config.tasks_per_step,
        dice_smooth=config.dice_smooth,
        seed=config.seed,
    )


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not finite."""


def _update(state: TrainState, config: TrainConfig, loss: float) -> float:
    """Do one optimiser step; return the norm of the gradient before clipping.

    The loss is the mean over processes and gradients are averaged, so all processes find the same step broken.
    """
    state.scaler.unscale_(state.optimiser)
    parameters = [p for p in state.network.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    finite = math.isfinite(float(norm))
    if not (finite and math.isfinite(loss)) and (finite or not _may_overflow(state.scaler)):
        raise NotFiniteError
    if config.clip_gradient_norm > 0:
        nn.utils.clip_grads_with_norm_(parameters, config.clip_gradient_norm, norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.average is not None and finite:
        state.average.update_parameters(state.network)
    state.step += 1
    return float(norm)


def _may_overflow(scaler: torch.amp.GradScaler) -> bool:
    """Whether a gradient may be too large for float16 and nothing is wrong: the scaler leaves such a step out.

    It halves its scale each time; what overflows below 1 is not made finite by another scale.
    """
    return scaler.is_enabled() and scaler.get_scale() >= 1


def _broken(state: TrainState, share: Share, ranks: Ranks, keeper: Keeper) -> RunError:
    """Save what led to it; return the error that says so."""
    file = keeper.save_broken(state, share, ranks.place.rank)
    cases = [case for of_one in ranks.gather(share.cases) for case in of_one]
    error = RunError(
        f"step {state.step}: the loss or its gradient is not finite on {', '.join(cases)}; the batch and the weights "
        f"are in {file}; lower the learning rate (--set learning_rate=...), clip (--set clip_gradient_norm=1) or look "
        "at these cases"
    )
    ranks.heard(error)
    return error


def _validation_is_due(state: TrainState, config: TrainConfig) -> bool:
    done = state.validated is not None and state.validated.step == state.step
    return state.step > 0 and not done and config.validates_after(state.step)


def _validate_if_due(
    state: TrainState,
    validate: Validate | None,
    config: TrainConfig,
    asked_to_stop: Callable[[], bool],
    ranks: Ranks,
    *,
    keeper: Keeper,
    watcher: Watcher,
) -> None:
    if validate is None or not _validation_is_due(state, config):
        return
    score = validate(state.usable(), asked_to_stop)
    if score is None:
        raise KeyboardInterrupt
    state.validated = Validation(score, state.step)
    better = math.isfinite(score) and (state.best is None or score > state.best.score)
    if better:
        state.best = state.validated
    if ranks.first:
        (keeper.save_best if better else keeper.save)(state)
    watcher.validation(state.validated, state.best)


def _too_large(config: TrainConfig, image: Tensor) -> str:
    patch = "x".join(str(n) for n in config.patch)
    return (
        f"{image.device}: too little memory for {len(image)} patches of {patch} with {config.network}; share the batch "
        "among more passes (--set accumulate=2), recompute activations (--set checkpointing=true), use "
        "--set precision=bf16, lower --set patch=..., or choose --preset small"
    )
