"""What a method is made of: a model on a network, a loss on its outputs, and scores to predict from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from abdoseg.losses.disambiguation import DiceOver, Reduction, UnannotatedWhen
from abdoseg.methods.task import Task

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork

DiceSmooth = Literal["both", "denominator"]
"""Where a binary dice has its 1: above and below the line, or below it alone (as DoDNet was published)."""


@dataclass(frozen=True, eq=False)
class TorchBatch:
    """One batch of patches.

    Parameters
    ----------
    image
        float32 ``(B, 1, X, Y, Z)``, in [0, 1].
    label, group
        uint8 and int16 ``(B, X, Y, Z)``: structure id (0 where the group does not know it), annotation group (-1
        outside the image).
    annotated
        bool ``(B, G, N)``.
    source
        int64 ``(B,)``: index of each example's source among the task's; -1: none of them.
    number
        int64 ``(B,)``: number of each example in the run's stream; what a loss draws, it draws by it and the seed.
    structure
        int64 ``(B,)``: id of the structure at each example's centre that the sampler drew it for; 0 background; -1: the
        sampler draws no structure. ``None``: not known.
    """

    image: Tensor
    label: Tensor
    group: Tensor
    annotated: Tensor
    source: Tensor
    number: Tensor
    structure: Tensor | None = None


@dataclass(frozen=True)
class LossSettings:
    """What a loss may be told at each step.

    Parameters
    ----------
    entropy_weight, entropy_weight_unannotated
        Lambda of patches with and without annotation, ramp included.
    dice_over, reduction, clamp
        Named settings of :func:`abdoseg.losses.disambiguation_terms`.
    unannotated_when
        Which patches are without annotation, see :func:`abdoseg.losses.entropy_weights`.
    tasks_per_step
        Structures of an example that dynamic heads learn in one step; 0: all that are annotated.
    dice_smooth
        Where a binary dice has its 1.
    seed
        The run's; what a loss draws, it draws by it and the number of the example.
    """

    entropy_weight: float = 1.0
    entropy_weight_unannotated: float = 3.0
    dice_over: DiceOver = "annotated"
    reduction: Reduction = "group"
    clamp: float = 0.0
    unannotated_when: UnannotatedWhen = "no_group"
    tasks_per_step: int = 0
    dice_smooth: DiceSmooth = "both"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class LossParts:
    """A loss and its terms, batch means.

    Parameters
    ----------
    total
        Scalar that carries the gradient.
    terms
        One scalar for each of :attr:`Method.terms`.
    """

    total: Tensor
    terms: tuple[Tensor, ...]


def voxels_in(batch: TorchBatch, groups: Tensor) -> Tensor:
    """Return bool ``(B, X, Y, Z)``: whether a voxel lies in one of the chosen ``groups``, bool ``(B, G)``."""
    slot = batch.group.flatten(1).long() + 1
    return torch.nn.functional.pad(groups, (1, 0), value=False).gather(1, slot).view_as(batch.group)


LossFunction = Callable[[Any, TorchBatch, LossSettings], LossParts]
"""``(outputs of the model, batch, settings) -> parts``."""


def _classes(task: Task) -> int:
    return 1 + len(task.structures)


def _as_it_is(network: "PaddedNetwork", task: Task) -> nn.Module:  # noqa: ARG001
    return network


def _the_image(batch: TorchBatch) -> tuple[Tensor, ...]:
    return (batch.image,)


def _the_outputs(outputs: Any) -> Tensor:
    scores: Tensor = outputs
    return scores


def _nothing(model: nn.Module, task: Task) -> str:  # noqa: ARG001
    return ""


@dataclass(frozen=True)
class Method:
    """How a network learns, and how its outputs become a label map.

    Parameters
    ----------
    loss
        ``(outputs, batch, settings) -> parts``.
    terms
        Names of the loss's terms.
    channels
        Channels that the network's own head has.
    build
        ``(network, task) -> model``: puts the method's own layers around the network; weights depend on torch's global
        seed alone.
    inputs
        What of a batch the model is called with in training.
    scores
        ``outputs -> (B, 1 + N, X, Y, Z)``: the label map is the best class of a voxel.
    independent
        What probabilities the scores stand for. False: logits of classes, whose softmax they are. True: 0 for
        background and each structure's logit against all else; a structure's probability is the sigmoid, background's
        is 1 minus that of the most probable structure.
    prepare
        ``(model, task) -> what to tell``: what a fresh model needs from files.
    """

    loss: LossFunction
    terms: tuple[str, ...]
    channels: Callable[[Task], int] = _classes
    build: "Callable[[PaddedNetwork, Task], nn.Module]" = _as_it_is
    inputs: Callable[[TorchBatch], tuple[Tensor, ...]] = _the_image
    scores: Callable[[Any], Tensor] = _the_outputs
    independent: bool = False
    prepare: Callable[[nn.Module, Task], str] = _nothing


class Model(Protocol):
    """What :attr:`Method.build` returns, a module: a network, or a method's layers around one."""

    def for_prediction(self) -> nn.Module:
        """Return what prediction uses: the same outputs, up to rounding, in less time; this model may be used up."""
        ...


class Predictor(nn.Module):
    """A trained model as prediction calls it: from images ``(B, 1, X, Y, Z)`` to scores ``(B, 1 + N, X, Y, Z)``.

    Parameters
    ----------
    model
        What :attr:`Method.build` returned.
    scores, independent
        :attr:`Method.scores` and :attr:`Method.independent`.
    """

    def __init__(self, model: nn.Module, scores: Callable[[Any], Tensor], *, independent: bool = False) -> None:
        super().__init__()
        self.model, self._scores, self.independent_heads = model, scores, independent

    def forward(self, image: Tensor) -> Tensor:
        """Return scores whose best class is the label."""
        return self._scores(self.model(image))


def with_background(logits: Tensor) -> Tensor:
    """Return scores ``(B, 1 + N, ...)`` of the logits ``(B, N, ...)`` of each structure against all else.

    Background has logit 0: the best class is background where no structure reaches a probability of 0.5, else the most
    probable one.
    """
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)
