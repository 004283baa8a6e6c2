"""The step: make the cases of the sources asked for, write them and their hidden truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.phantom import amos, btcv, totalsegmentator, word
from abdoseg.phantom.body import Key, Sex
from abdoseg.phantom.layouts import Layout, Made, Plan, save_nifti
from abdoseg.phantom.scanner import Modality, scan_person

LAYOUTS: dict[str, Layout] = {
    "word": word.LAYOUT,
    "amos": amos.LAYOUT,
    "btcv": btcv.LAYOUT,
    "totalsegmentator": totalsegmentator.LAYOUT,
}
"""The sources that phantoms can imitate."""

MAX_CASES = 120
"""More labelled MR cases than AMOS has would need ids that mean CT."""

MAX_SCALE = 8.0
"""Coarser voxels than this would leave most structures without any."""

_README = """Hidden truth of the phantoms
============================

<source>/<case>.nii.gz: all 16 structures of a phantom on the grid of its image (uint8; 0 background, 1 spleen,
2 right kidney, 3 left kidney, 4 gallbladder, 5 esophagus, 6 liver, 7 stomach, 8 aorta, 9 postcava, 10 pancreas,
11 right adrenal gland, 12 left adrenal gland, 13 duodenum, 14 bladder, 15 prostate/uterus, 16 portal and splenic
vein), whatever the source itself annotates, and also for its images without label. <case> is the id that
`abdoseg ingest` gives the case. Nothing here is of any patient: bodies and scans are synthetic.
Do not train on these files; compare predictions with them.
"""


@dataclass(frozen=True)
class PhantomCase:
    """One labelled phantom.

    Parameters
    ----------
    source
        Which source it imitates.
    case_id
        The id that ingest will use.
    modality
        ``CT`` or ``MR``.
    image
        Image file in the source's layout.
    truth
        File with all 16 structures on the image's grid.
    sex
        ``m`` or ``f``.
    """

    source: str
    case_id: str
    modality: Modality
    image: Path
    truth: Path
    sex: Sex


def write_phantoms(
    out: Path,
    sources: Sequence[str] = tuple(LAYOUTS),
    *,
    cases: int = 8,
    seed: int = 0,
    spacing_scale: float = 1.0,
    on_case: Callable[[str, str], None] | None = None,
) -> list[PhantomCase]:
    """Write synthetic scans in the native layouts of several sources, and their full truth.

    The voxels of a case depend on ``seed``, the source, the case's number and ``spacing_scale`` only. In-plane
    voxels are 1.4-1.6 mm at scale 1, about twice those of the real sources, which keeps a case at a few seconds;
    slices are as thick as the real ones. At scale 2.5 a case takes less than a second of one core.

    Parameters
    ----------
    out
        Folder to write to: ``<source>/...`` in the source's own layout, ``truth/<source>/<case>.nii.gz``.
    sources
        Which of :data:`LAYOUTS`.
    cases
        Labelled cases of each source; AMOS makes a third of them MR. AMOS and BTCV get one more image without label.
    seed
        Seed of everything random.
    spacing_scale
        Multiplies the voxel spacing: 2 gives an eighth of the voxels.
    on_case
        Called with source and case id after each case is written.

    Returns
    -------
    list of PhantomCase
        The labelled cases in the order written.

    Raises
    ------
    ConfigError
        If a number is out of range, ``out`` is a file or a source's folder already holds something.
    UnknownNameError
        If a source is not in :data:`LAYOUTS`.
    """
    names = tuple(dict.fromkeys(sources))
    _check(out, names, cases, spacing_scale)
    truth = out / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    (truth / "README.txt").write_text(_README, encoding="utf-8")
    result: list[PhantomCase] = []
    for source in names:
        made: list[Made] = []
        for plan in LAYOUTS[source].plan(cases):
            case = _write_case(out, source, plan, seed, spacing_scale)
            made.append((plan, case.sex))
            result += [case] if plan.labelled else []
            if on_case is not None:
                on_case(source, plan.case_id)
        LAYOUTS[source].finish(out / source, made)
    return result


def _write_case(out: Path, source: str, plan: Plan, seed: int, spacing_scale: float) -> PhantomCase:
    scan = scan_person(Key(seed, source, plan.index), plan.protocol, spacing_scale)
    image = LAYOUTS[source].write(out / source, plan, scan)
    truth = out / "truth" / source / f"{plan.case_id}.nii.gz"
    save_nifti(truth, scan.truth, scan.affine)
    return PhantomCase(source, plan.case_id, scan.modality, image, truth, scan.sex)


def _check(out: Path, sources: Sequence[str], cases: int, spacing_scale: float) -> None:
    """Refuse what cannot be made, before anything is written."""
    for source in sources:
        if source not in LAYOUTS:
            raise unknown_name("phantom source", source, list(LAYOUTS))
    if not sources:
        raise ConfigError(f"phantom: no source was named; expected one or more of {', '.join(LAYOUTS)}.")
    if not 1 <= cases <= MAX_CASES:
        raise ConfigError(f"phantom: cases is {cases}; expected 1 to {MAX_CASES}.")
    if not 0 < spacing_scale <= MAX_SCALE:
        raise ConfigError(f"phantom: spacing_scale is {spacing_scale}; expected more than 0, at most {MAX_SCALE}.")
    _check_folders(out, sources)


def _check_folders(out: Path, sources: Sequence[str]) -> None:
    """Refuse to write over anything."""
    blocker = next((p for p in (out, *out.parents) if p.exists()), out)
    if blocker.exists() and not blocker.is_dir():
        raise ConfigError(f"{blocker}: is a file; expected a folder to write phantoms to; choose another name.")
    for folder in (f for s in sources for f in (out / s, out / "truth" / s)):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: exists already; choose another output folder or delete this one first.")
