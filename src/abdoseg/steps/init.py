"""Init: make a workspace with the user's own structures, spacing or windows."""

import math
from dataclasses import dataclass
from pathlib import Path

from abdoseg.anatomy import ABDOMEN
from abdoseg.cards import list_cards
from abdoseg.errors import ConfigError
from abdoseg.own_structures import read_structures
from abdoseg.places import open_place
from abdoseg.store import Settings, Workspace
from abdoseg.windows import Windows

LEAST_SPACING_MM, MOST_SPACING_MM = 0.1, 50.0


@dataclass(frozen=True)
class InitReport:
    """What :func:`init` made.

    Parameters
    ----------
    workspace
        The workspace, without cases.
    replaced
        Whether the settings of an empty workspace were replaced.
    cards
        Ids of the shipped cards that annotate some of its structures; others of theirs are left out by an ingest.
    """

    workspace: Workspace
    replaced: bool
    cards: tuple[str, ...]


def init(
    path: Path | str,
    structures: Path | str | None = None,
    *,
    spacing_mm: float = 2.0,
    window_ct: tuple[float, float] | None = None,
    window_mr: tuple[float, float] | None = None,
    split_seed: int = 0,
) -> InitReport:
    """Make a workspace without cases.

    Parameters
    ----------
    path
        Where; a workspace that is there is kept as it is unless it holds neither cases nor views nor runs.
    structures
        File of the structures, in channel order; default: the paper's 16. See
        :func:`abdoseg.own_structures.read_structures`.
    spacing_mm
        Voxel side that all scans are brought to, 0.1 to 50 mm.
    window_ct
        HU that become 0 and 1; default: -400 and 400.
    window_mr
        Percentiles of the voxels above 0 that become 0 and 1; default: 1 and 99.
    split_seed
        Seed of the train/val/test split.

    Raises
    ------
    ConfigError
        If a value is not allowed, or a workspace that holds something is there.
    WorkspaceError
        If the folder cannot be written, or the workspace there cannot be read.
    """
    if not LEAST_SPACING_MM <= spacing_mm <= MOST_SPACING_MM:
        expected = f"{LEAST_SPACING_MM:g} to {MOST_SPACING_MM:g} mm"
        raise ConfigError(f"--spacing-mm: found {spacing_mm:g}, expected {expected}")
    settings = Settings.of(
        ABDOMEN.structures if structures is None else read_structures(open_place(structures)),
        spacing_mm=spacing_mm,
        windows=_windows(window_ct, window_mr),
        split_seed=split_seed,
    )
    replaced = _clear(path, settings)
    workspace = Workspace.create(path, settings)
    return InitReport(workspace, replaced, _fitting_cards(workspace))


def _windows(window_ct: tuple[float, float] | None, window_mr: tuple[float, float] | None) -> Windows:
    usual = Windows()
    ct, mr = window_ct or usual.ct_hu, window_mr or usual.mr_percentiles
    if not (ct[0] < ct[1] and all(map(math.isfinite, ct))):
        raise ConfigError(f"--window-ct: found {ct[0]:g} {ct[1]:g}, expected LOW HIGH in HU, LOW below HIGH")
    if not 0 <= mr[0] < mr[1] <= 100:
        raise ConfigError(f"--window-mr: found {mr[0]:g} {mr[1]:g}, expected LOW HIGH in per cent, LOW below HIGH")
    return Windows(ct_hu=ct, mr_percentiles=mr)


def _clear(path: Path | str, settings: Settings) -> bool:
    """Take the settings of an empty workspace away where others are asked for; refuse one that holds something."""
    if not Workspace.is_at(path):
        return False
    workspace = Workspace.open(path)
    if workspace.settings == settings:
        return False
    held = {
        "case": len(workspace.case_keys()),
        "view": len(workspace.views()),
        "run": sum(1 for _ in workspace.runs_folder.glob("*/*.toml")),
    }
    told = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in held.items() if n)
    if told:
        raise ConfigError(
            f"{workspace.path}: a workspace with other settings and {told} is there; choose another by --workspace"
        )
    workspace.forget_settings()
    return True


def _fitting_cards(workspace: Workspace) -> tuple[str, ...]:
    names = set(workspace.settings.structures)
    return tuple(card.id for card in list_cards() if names.intersection(card.annotated))
