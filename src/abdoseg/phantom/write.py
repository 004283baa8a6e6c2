"""The step: make the cases of the sources asked for, write them and their hidden truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from abdoseg.errors import ConfigError, unknown_name
from abdoseg.phantom import (
    abdomenct1k,
    amos,
    btcv,
    flare22,
    nih_pancreas,
    totalsegmentator,
    totalsegmentator_v1,
    urogram,
    word,
)
from abdoseg.phantom.body import Key, Sex
from abdoseg.phantom.faults import list_faults, plant, refit_truth
from abdoseg.phantom.layouts import Fault, Layout, Made, Plan, save_nifti
from abdoseg.phantom.scanner import Modality, scan_person

LAYOUTS: dict[str, Layout] = {
    "word": word.LAYOUT,
    "amos": amos.LAYOUT,
    "btcv": btcv.LAYOUT,
    "totalsegmentator": totalsegmentator.LAYOUT,
    "totalsegmentator-v1": totalsegmentator_v1.LAYOUT,
    "abdomenct1k": abdomenct1k.LAYOUT,
    "flare22": flare22.LAYOUT,
    "nih-pancreas": nih_pancreas.LAYOUT,
    "urogram": urogram.LAYOUT,
}
"""The sources that phantoms can imitate."""

DEFAULT_SOURCES = ("word", "amos", "btcv", "totalsegmentator")
"""What is written when no source is named: four that differ in every way, in a reasonable time."""

ALL = "all"
"""Name that stands for every source."""

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
`abdoseg ingest` gives the case. A case with a planted fault (../faults.json) has the truth in the geometry that its
image states. Nothing here is of any patient: bodies and scans are synthetic.
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
    fault
        The fault planted in it, empty for a sound case.
    """

    source: str
    case_id: str
    modality: Modality
    image: Path
    truth: Path
    sex: Sex
    fault: str = ""


@dataclass(frozen=True)
class _Order:
    """What the caller asked for, but the sources."""

    out: Path
    cases: int
    seed: int
    spacing_scale: float
    faults: bool


def write_phantoms(
    out: Path,
    sources: Sequence[str] = DEFAULT_SOURCES,
    *,
    cases: int = 8,
    seed: int = 0,
    spacing_scale: float = 1.0,
    faults: bool = False,
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
        Which of :data:`LAYOUTS`; :data:`ALL` for every one.
    cases
        Labelled cases of each source; AMOS makes a third of them MR. AMOS, BTCV and FLARE22 get one more image
        without label, NIH the labels of withdrawn images where the numbers reach them.
    seed
        Seed of everything random.
    spacing_scale
        Multiplies the voxel spacing: 2 gives an eighth of the voxels.
    faults
        Whether each source gets cases more that carry its known faults, listed in ``faults.json``.
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
    names = source_names(sources)
    order = _Order(out, cases, seed, spacing_scale, faults)
    _check(order, names)
    (out / "truth").mkdir(parents=True, exist_ok=True)
    (out / "truth" / "README.txt").write_text(_README, encoding="utf-8")
    result: list[PhantomCase] = []
    for source in names:
        result += _write_source(order, source, on_case or _tell_nobody)
    return result


def source_names(sources: Sequence[str]) -> tuple[str, ...]:
    """Return each source once, in the order given; :data:`ALL` stands for those not named."""
    names = [name for source in sources for name in (tuple(LAYOUTS) if source == ALL else (source,))]
    return tuple(dict.fromkeys(names))


def count_scans(sources: Sequence[str], cases: int, *, faults: bool = False) -> int:
    """Return how many scans :func:`write_phantoms` makes, 0 where it would refuse; it calls ``on_case`` as often."""
    names = source_names(sources)
    if not 1 <= cases <= MAX_CASES or not set(names) <= set(LAYOUTS):
        return 0
    return sum(len(_plans(name, cases, faults=faults)) for name in names)


def _tell_nobody(source: str, case: str) -> None:
    """Do nothing."""


def _plans(source: str, cases: int, *, faults: bool) -> list[Plan]:
    """Return the plans of a source, those that carry faults last, none twice."""
    layout = LAYOUTS[source]
    plans = {plan.case_id: plan for plan in layout.plan(cases)}
    for fault in layout.faults if faults else ():
        if fault.plan is not None:
            plans.setdefault(fault.plan.case_id, fault.plan)
    return list(plans.values())


def _write_source(order: _Order, source: str, on_case: Callable[[str, str], None]) -> list[PhantomCase]:
    """Write all cases of a source, then what lies beside them, then its faults."""
    layout, folder = LAYOUTS[source], order.out / source
    planted = {fault.case: fault for fault in layout.faults} if order.faults else {}
    made: list[Made] = []
    result: list[PhantomCase] = []
    for plan in _plans(source, order.cases, faults=order.faults):
        case = _write_case(order, source, plan, planted.get(plan.case_id))
        made.append((plan, case.sex))
        result += [case] if plan.labelled and plan.image else []
        on_case(source, plan.case_id)
    layout.finish(folder, made)
    for fault in planted.values():
        plant(folder, fault)
    for case in result:
        if case.fault:
            refit_truth(case.truth, case.image)
    if order.faults:
        list_faults(order.out, source, layout.faults)
    return result


def _write_case(order: _Order, source: str, plan: Plan, fault: Fault | None) -> PhantomCase:
    key = Key(order.seed, plan.person_of or source, plan.index)
    scan = scan_person(key, plan.protocol, order.spacing_scale)
    image = LAYOUTS[source].write(order.out / source, plan, scan)
    truth = order.out / "truth" / source / f"{plan.case_id}.nii.gz"
    if plan.image:
        save_nifti(truth, scan.truth, scan.affine)
    return PhantomCase(source, plan.case_id, scan.modality, image, truth, scan.sex, fault.fault if fault else "")


def _check(order: _Order, sources: Sequence[str]) -> None:
    """Refuse what cannot be made, before anything is written."""
    for source in sources:
        if source not in LAYOUTS:
            raise unknown_name("phantom source", source, [*LAYOUTS, ALL])
    if not sources:
        raise ConfigError(f"phantom: no source was named; expected one or more of {', '.join(LAYOUTS)}, or {ALL}.")
    if not 1 <= order.cases <= MAX_CASES:
        raise ConfigError(f"phantom: cases is {order.cases}; expected 1 to {MAX_CASES}.")
    if not 0 < order.spacing_scale <= MAX_SCALE:
        found = f"spacing_scale is {order.spacing_scale}"
        raise ConfigError(f"phantom: {found}; expected more than 0, at most {MAX_SCALE}.")
    _check_folders(order.out, sources)


def _check_folders(out: Path, sources: Sequence[str]) -> None:
    """Refuse to write over anything."""
    blocker = next((p for p in (out, *out.parents) if p.exists()), out)
    if blocker.exists() and not blocker.is_dir():
        raise ConfigError(f"{blocker}: is a file; expected a folder to write phantoms to; choose another name.")
    for folder in (f for s in sources for f in (out / s, out / "truth" / s)):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: exists already; choose another output folder or delete this one first.")
