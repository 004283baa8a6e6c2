"""The naive way: whatever nobody annotated is background, in unannotated structures' places and slices too."""

from torch import Tensor

from abdoseg.losses import ordinary_focal_and_dice
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return ordinary focal + dice over all voxels of the image; there is no entropy term."""
    focal, dice = ordinary_focal_and_dice(logits, batch.label, batch.group >= 0, settings.dice_over, settings.clamp)
    return LossParts((focal + dice).mean(), (focal.mean(), dice.mean()))


METHOD = Method(loss, ("focal", "dice"))
