"""Draw docs/pictures/loss.png: two small patches, their groups, and which way the loss pushes each class.

Run from the checkout: ``python docs/pictures/loss.py``.
"""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from numpy.typing import NDArray
from scipy import ndimage

from abdoseg.losses import disambiguation_loss

SIDE = 48
LIVER, SPLEEN = 1, 2
ANNOTATED, NOT_ANNOTATED, OUTSIDE = 0, 1, -1
CLASSES = ListedColormap(["#f2f2f2", "#0072b2", "#e69f00"])  # Okabe and Ito's colours, told apart by all eyes
GROUPS = ListedColormap(["#555555", "#009e73", "#cccccc"])


class Patch(NamedTuple):
    """One slice through a patch, all ``(SIDE, SIDE)``."""

    name: str
    truth: NDArray[np.int64]
    group: NDArray[np.int64]


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.bool_]:
    """Return the mask ``(SIDE, SIDE)`` of an ellipse, in voxels."""
    x, y = np.indices((SIDE, SIDE))
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 < 1


def patches() -> tuple[Patch, Patch]:
    """Return a partially labelled patch, with an ignored corner and padding, and a sparsely labelled one."""
    truth = np.zeros((SIDE, SIDE), dtype=np.int64)
    truth[ellipse((15, 27), (11, 15))] = LIVER
    truth[ellipse((36, 29), (6, 10))] = SPLEEN
    partial = np.full((SIDE, SIDE), ANNOTATED)
    partial[:12, 34:] = NOT_ANNOTATED
    partial[:, :6] = OUTSIDE
    sparse = np.full((SIDE, SIDE), NOT_ANNOTATED)
    sparse[:, 3::6] = ANNOTATED
    return Patch("partially labelled,\none corner ignored", truth, partial), Patch(
        "every 6th slice\nlabelled", truth, sparse
    )


def predicted(truth: NDArray[np.int64]) -> torch.Tensor:
    """Return logits ``(1, 3, SIDE, SIDE, 1)`` of a half-trained network: the truth, moved, blurred and unsure."""
    moved = np.roll(truth, (2, -2), axis=(0, 1))
    scores = np.stack([ndimage.gaussian_filter((moved == c).astype(float), 2.0) for c in range(3)])
    noise = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=scores.shape), (0, 1.5, 1.5))
    return torch.tensor(4 * scores + 3 * noise, dtype=torch.float64)[None, ..., None].requires_grad_()


def push(patch: Patch) -> NDArray[np.float64]:
    """Return minus the gradient by the logits ``(3, SIDE, SIDE)``: which way descent moves them."""
    logits = predicted(patch.truth)
    annotated = torch.tensor([[[True, False], [False, False]]])  # group 0 knows the liver, group 1 nothing
    label, group = (torch.tensor(a)[None, ..., None] for a in (patch.truth, patch.group))
    disambiguation_loss(logits, label, group, annotated).backward()
    return -logits.grad[0, ..., 0].numpy()


def show(axes: Axes, values: NDArray[np.float64], colours: str | ListedColormap, steps: tuple[float, ...] = ()) -> None:
    """Draw an image ``(SIDE, SIDE)``, of classes between the steps or of numbers from -1 to 1."""
    norm = BoundaryNorm(steps, len(steps) - 1) if steps else plt.Normalize(-1, 1)
    axes.imshow(values.T, origin="lower", cmap=colours, norm=norm, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_patch(row: NDArray[np.object_], patch: Patch) -> None:
    """Draw one patch into six axes."""
    known = patch.group == ANNOTATED
    merged = np.where(known & (patch.truth == LIVER), LIVER, 0).astype(float)
    merged[~known] = np.nan  # nothing is asked for there
    show(row[0], patch.truth, CLASSES, (-0.5, 0.5, 1.5, 2.5))
    show(row[1], patch.group, GROUPS, (-1.5, -0.5, 0.5, 1.5))
    show(row[2], merged, CLASSES, (-0.5, 0.5, 1.5, 2.5))
    pushes = push(patch)
    most = np.quantile(np.abs(pushes), 0.98)
    strength = np.sign(pushes) * np.sqrt(np.minimum(np.abs(pushes) / most, 1))  # a root shows the weak ones too
    for axes, values in zip(row[3:], strength, strict=True):
        show(axes, values, "PuOr_r")
        axes.contour((patch.truth == LIVER).T, [0.5], colors="#0072b2", linewidths=0.8)
        axes.contour((patch.truth == SPLEEN).T, [0.5], colors="#e69f00", linewidths=0.8)
    row[0].set_ylabel(patch.name, fontsize=9)


def main() -> None:
    """Write the picture beside this file."""
    titles = (
        "truth",
        "groups",
        "merged label",
        "push on\nbackground",
        "push on liver\n(annotated)",
        "push on spleen\n(not annotated)",
    )
    figure, axes = plt.subplots(2, 6, figsize=(9, 3.7), layout="constrained")
    for row, patch in zip(axes, patches(), strict=True):
        draw_patch(row, patch)
    for each, title in zip(axes[0], titles, strict=True):
        each.set_title(title, fontsize=9)
    push_colours = plt.get_cmap("PuOr_r")
    marks = [
        ("liver", CLASSES(1)),
        ("spleen", CLASSES(2)),
        ("group 0: liver known", GROUPS(1)),
        ("group 1: nothing known", GROUPS(2)),
        ("-1: outside the image", GROUPS(0)),
        ("raised", push_colours(0.85)),
        ("lowered", push_colours(0.15)),
    ]
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for _, colour in marks]
    figure.legend(
        handles,
        [name for name, _ in marks],
        loc="outside lower center",
        ncols=7,
        fontsize=8,
        columnspacing=1.2,
        handlelength=1.2,
        frameon=False,
    )
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
