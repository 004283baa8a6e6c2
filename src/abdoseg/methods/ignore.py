"""An ignore label: voxels of which nobody knows what they are do not count.

A voxel counts where a structure is drawn in it, or where all structures were looked for and none was found. So
background is learnt from groups that annotate everything, and from nothing else: the method's weakness.
"""

from torch import Tensor

from abdoseg.losses import ordinary_focal_and_dice
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch, voxels_in


def loss(logits: Tensor, batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return ordinary focal + dice over the voxels that count; 0 for an example without any."""
    drawn = (batch.label > 0) & (batch.group >= 0)
    counted = drawn | voxels_in(batch, batch.annotated.all(dim=2))
    focal, dice = ordinary_focal_and_dice(logits, batch.label, counted, settings.dice_over, settings.clamp)
    return LossParts((focal + dice).mean(), (focal.mean(), dice.mean()))


METHOD = Method(loss, ("focal", "dice"))
