"""The organs of the cavity, painted from the largest to the finest; see :data:`STEPS` for the order.

Organs are painted into the fat of the cavity. One that may displace others first paints a thin halo of fat, as
the mesentery does in life; without it neighbours would merge into one grey mass.
"""

from collections.abc import Callable

import numpy as np

from abdoseg.phantom.arrays import BoolArray, Triple
from abdoseg.phantom.body import Placement, Subject
from abdoseg.phantom.canvas import Canvas, Coat
from abdoseg.phantom.shapes import Cut, Ellipsoid, Hollow, Shape, Slab, Tube
from abdoseg.phantom.tissues import tissues_where
from abdoseg.phantom.torso import SIDES

FAT: BoolArray = tissues_where(names=("visceral_fat",))
SOFT: BoolArray = tissues_where(kinds=("fat", "organ"))
_LIVER = tissues_where(names=("liver", "liver_vein"))
_STOMACH = tissues_where(names=("stomach_wall", "stomach_content"))
_VESSELS = tissues_where(names=("aorta", "postcava", "artery", "vein", "portal_vein"))
_KIDNEYS = tissues_where(names=tuple(f"{part}_{s}" for part in ("cortex", "medulla") for s in ("right", "left")))


def _with_halo(canvas: Canvas, shape: Shape, tissue: str, over: BoolArray, halo: float) -> None:
    """Paint a shape with a margin of fat around it."""
    canvas.paint_coats(shape, Coat("visceral_fat", over, halo), Coat(tissue, over))


def _liver(canvas: Canvas, subject: Subject) -> None:
    """Paint the liver: what lies under the diaphragm, above a slanted visceral face, with its vessels."""
    place = subject.places["liver"]
    body = place.ellipsoid((46, 28, 72), (112, 118, 112))
    dx, dy, dz = place.shift
    lift = 6.0 * np.log(place.size) / 0.04
    face = Cut(body, (0.60, 0.20, 0.775), 54.0 - lift + 0.6 * dx + 0.775 * dz, 14.0)
    shape = Cut(face, (0.50, 0.86, 0.0), -12.0 + 0.5 * dx + 0.86 * dy, 18.0)
    canvas.paint(shape, "liver", FAT)
    branches: tuple[list[Triple], ...] = (
        [(52, 44, 50), (80, 38, 60), (112, 30, 62)],
        [(80, 38, 60), (98, 20, 35), (108, 10, 10)],
        [(52, 44, 50), (30, 62, 70), (-10, 74, 88)],
        [(26, 34, 120), (70, 40, 105), (110, 40, 85)],
        [(26, 34, 120), (48, 58, 95), (70, 75, 60)],
        [(26, 34, 120), (0, 60, 108), (-30, 76, 104)],
    )
    for branch in branches:
        canvas.paint(place.tube(branch, (5, 4, 2.2)), "liver_vein", _LIVER)


def _spleen(canvas: Canvas, subject: Subject) -> None:
    """Paint the spleen, a crescent between the left wall and the stomach."""
    place = subject.places["spleen"]
    shape = Hollow(
        place.ellipsoid((-102, -12, 78), (47, 56, 66), (-18, 8, 0)),
        place.ellipsoid((-50, 22, 70), (36, 47, 78), (-10, 8, 0)),
        10.0,
    )
    _with_halo(canvas, shape, "spleen", FAT | _LIVER, subject.halo_mm)


def _stomach(canvas: Canvas, subject: Subject) -> None:
    """Paint the stomach, a J from the left dome to the pylorus, with food and a bubble of gas in front."""
    place = subject.places["stomach"]
    rng = subject.key.rng("stomach content")
    fill = rng.uniform(0.78, 1.08)
    line = [(-62, 14, 122), (-74, 24, 104), (-78, 46, 72), (-66, 66, 38), (-36, 78, 16), (-4, 76, 8), (22, 66, 10)]
    radii = tuple(r * fill for r in (26, 35, 35, 30, 25, 20, 12))
    end = subject.places["duodenum"].points(np.array([[30.0, 62.0, 12.0]]))
    points = np.concatenate([place.points(np.asarray(line, float)), end])
    shape = Tube(points, tuple(r * place.size for r in (*radii, 10.0)))
    _with_halo(canvas, shape, "stomach_wall", FAT | _LIVER, subject.halo_mm)
    walls = tissues_where(names=("stomach_wall",))
    canvas.paint(shape, "stomach_content", walls, grow=-rng.uniform(3.5, 5.5))
    level = float(points[2, 1] + rng.uniform(-8, 34))
    canvas.paint(Cut(shape, (0, 1, 0), level), "stomach_gas", _STOMACH, grow=-5.0)


def _great_vessels(canvas: Canvas, subject: Subject) -> None:
    """Paint aorta and inferior vena cava down to their forks, and the iliac vessels."""
    aorta, cava = subject.places["aorta"], subject.places["postcava"]
    trunk = aorta.tube(
        [(-22, 2, 330), (-22, 4, 220), (-18, 12, 150), (-12, 24, 90), (-9, 29, 30), (-8, 31, -40), (-4, 29, -88)],
        (13.5, 13, 12.5, 11.5, 10.5, 9.5, 9),
    )
    vein = cava.tube(
        [(20, 26, -98), (23, 29, -50), (24, 29, 0), (26, 29, 55), (29, 31, 95), (27, 40, 128), (20, 48, 160)],
        (10, 10.5, 11, 11.5, 12, 12.5, 13),
    )
    over = SOFT | tissues_where(names=("diaphragm", "lung_right", "lung_left", "wall_fat", "heart"))
    canvas.paint(vein, "visceral_fat", over & ~_LIVER, grow=1.5)  # the liver lies close around its part
    canvas.paint(vein, "postcava", over)
    _with_halo(canvas, trunk, "aorta", over, 2.0)
    for side, sign in SIDES:
        start = aorta.point((-4, 29, -88))
        artery = [start, (sign * 22, 24, -122), (sign * 46, 14, -160), (sign * 62, 40, -215), (sign * 66, 66, -265)]
        canvas.paint(Tube(np.asarray(artery, float), (7, 6, 5.5, 5, 5)), f"iliac_artery_{side}", FAT)
        start = cava.point((20, 26, -98))
        drain = [start, (sign * 26 + 6, 14, -126), (sign * 46, 2, -164), (sign * 58, 32, -215), (sign * 56, 62, -265)]
        canvas.paint(Tube(np.asarray(drain, float), (8, 7, 6.5, 6, 6)), f"iliac_vein_{side}", FAT)


def _esophagus(canvas: Canvas, subject: Subject) -> None:
    """Paint the esophagus from the chest to the stomach's top."""
    place = subject.places["esophagus"]
    entry = subject.places["stomach"].point((-46, 34, 108))
    chest = place.points(np.array([(2, 6, 330), (-2, 12, 220), (-6, 24, 165), (-12, 32, 138), (-26, 36, 118)], float))
    tube = Tube(np.concatenate([chest, [entry]]), tuple(r * place.size for r in (9, 9, 9.5, 9.5, 9, 9.5)))
    over = SOFT | tissues_where(names=("diaphragm", "lung_right", "lung_left", "wall_fat", "heart"))
    over &= ~(_STOMACH | _VESSELS)
    _with_halo(canvas, tube, "esophagus", over, 2.5)
    if subject.key.rng("esophagus gas").random() < 0.4:
        canvas.paint(tube, "esophagus_gas", tissues_where(names=("esophagus",)), grow=-5.5)


def _kidney(canvas: Canvas, subject: Subject, side: str, sign: float) -> None:
    """Paint a kidney: a bean with its hilum to the middle and front, medulla, sinus fat, pelvis and perhaps a cyst."""
    place, rng = subject.places[f"{side}_kidney"], subject.key.rng(f"{side} kidney")
    x, y, z = place.pivot
    tilt = (-10.0, sign * 14.0, sign * 28.0)
    bean = place.ellipsoid((x, y, z), (29, 24.5, 55), tilt)
    sinus = place.ellipsoid((x - sign * 17, y + 8, z), (15, 9, 21), tilt)
    shape = Hollow(bean, sinus, 5.0)
    over = SOFT & ~_VESSELS
    _with_halo(canvas, shape, f"cortex_{side}", over, 2.0 * subject.halo_mm)
    canvas.paint(sinus, "visceral_fat", over & _KIDNEYS)
    cortex = tissues_where(names=(f"cortex_{side}",))
    for turn in np.linspace(0.0, 2 * np.pi, 9)[:-1]:
        # Pyramids stand around the sinus in the plane of the bean's long axis.
        center = (x + sign * (4 + 7 * np.cos(turn)), y + 6 * np.cos(2 * turn), z + 34 * np.sin(turn))
        pyramid = place.ellipsoid(center, (8.5, 9, 9), tilt)
        canvas.paint(pyramid, f"medulla_{side}", cortex)
    canvas.paint(place.ellipsoid((x - sign * 15, y + 7, z - 2), (10, 4.5, 11), tilt), "renal_pelvis", FAT)
    if rng.random() < 0.2:
        pole = float(rng.choice([-34.0, 34.0]))
        cyst = Ellipsoid(place.point((x + sign * 20, y, z + pole)), (rng.uniform(7, 15),) * 3)
        canvas.paint(cyst, f"kidney_cyst_{side}", FAT | _KIDNEYS)


def _kidneys(canvas: Canvas, subject: Subject) -> None:
    for side, sign in SIDES:
        _kidney(canvas, subject, side, sign)


def _renal_vessels(canvas: Canvas, subject: Subject) -> None:
    """Paint renal arteries and veins, the upper mesenteric vessels and the celiac trunk."""
    aorta, cava = subject.places["aorta"], subject.places["postcava"]
    for side, sign in SIDES:
        x, y, z = subject.places[f"{side}_kidney"].pivot
        hilum = subject.places[f"{side}_kidney"].point((x - sign * 16, y + 8, z))
        for tissue, start, radius in (
            ("artery", aorta.point((-9, 29, 12)), 3.2),
            ("vein", cava.point((24, 29, 4)), 4.5 if side == "right" else 4.8),
        ):
            ends = np.array([start, hilum])
            # The left vein crosses before the aorta.
            detour = (0.0, 6.0 if side == "left" and tissue == "vein" else -2.0, 0.0)
            points = np.stack([ends[0], ends.mean(axis=0) + detour, ends[1]])
            canvas.paint(Tube(points, (radius,) * 3), tissue, FAT)
    pancreas = subject.places["pancreas"]
    artery = [aorta.point((-9, 40, 22)), pancreas.point((-4, 46, 0)), pancreas.point((2, 52, -40)), (10, 60, -95)]
    canvas.paint(Tube(np.asarray(artery, float), (3.8, 3.8, 3.5, 2.5)), "artery", FAT)
    vein = [pancreas.point((13, 47, 0)), pancreas.point((13, 54, -38)), (20, 62, -95)]
    canvas.paint(Tube(np.asarray(vein, float), (5, 5, 3)), "vein", FAT)


_ADRENAL_LIMBS: dict[str, tuple[tuple[Triple, Triple, float], ...]] = {
    "right": (
        ((31, 6, 60), (2.7, 7.5, 15), -6.0),
        ((35, -6, 56), (2.5, 8, 12.5), 20.0),
        ((27, -6, 57), (2.5, 8, 12.5), -16.0),
    ),
    "left": (
        ((-35, 16, 58), (2.7, 7.5, 14), 4.0),
        ((-41, 5, 55), (2.5, 9, 13), -28.0),
        ((-31, 4, 56), (2.5, 9, 12.5), 18.0),
    ),
}
"""Middle, half lengths (mm) and turn about z (degrees) of the sheets: an upside down V right, a Y left."""


def _adrenals(canvas: Canvas, subject: Subject) -> None:
    """Paint the adrenals: thin sheets behind the cava on the right, before the kidney on the left."""
    over = SOFT & ~(_VESSELS | _KIDNEYS)
    for side, sign in SIDES:
        place = subject.places[f"{side}_adrenal"]
        for tissue, grow in (("visceral_fat", 2.5), (f"adrenal_{side}", 0.0)):
            for center, half, turn in _ADRENAL_LIMBS[side]:
                a, b, c = (length * place.size for length in half)
                tilt = place.turned((-8.0, sign * 10.0, turn))
                canvas.paint(Slab(place.point(center), (a, b, c), tilt, edge=2.2), tissue, over, grow=grow)


def _duodenum(canvas: Canvas, subject: Subject) -> None:
    """Paint the duodenum, a C around the head of the pancreas that crosses before the great vessels."""
    place, rng = subject.places["duodenum"], subject.key.rng("duodenum")
    down: list[Triple] = [(30, 62, 12), (48, 54, 20), (60, 38, 4), (58, 30, -28)]
    across: list[Triple] = [(44, 34, -54), (14, 48, -58), (-18, 48, -50), (-30, 50, -22)]
    tube = place.tube(down + across, (11, 13, 12.5, 12, 11.5, 10.5, 10.5, 10.5))
    over = SOFT & ~(_VESSELS | _STOMACH)
    _with_halo(canvas, tube, "duodenum_wall", over, 1.5)
    walls = tissues_where(names=("duodenum_wall",))
    canvas.paint(tube, "duodenum_content", walls, grow=-rng.uniform(3.0, 5.0))


def _pancreas(canvas: Canvas, subject: Subject) -> None:
    """Paint the pancreas from the head in the duodenal C to the tail near the spleen."""
    place = subject.places["pancreas"]
    tail = subject.places["spleen"].shift * 0.4
    head = [(38, 42, -30), (36, 46, -10), (20, 54, 4)]
    body = [(-8, 58, 14), (-36, 46, 26), (-62, 24, 38), (-86, 4, 48)]
    points = place.points(np.array(head + body, dtype=float))
    points[-2:] += tail
    tube = Tube(points, tuple(r * place.size for r in (13, 16, 12.5, 12, 12, 12, 10)))
    over = SOFT & ~(_VESSELS | _KIDNEYS | tissues_where(names=("duodenum_wall", "duodenum_content", "spleen")))
    _with_halo(canvas, tube, "pancreas", over, 1.5)


def _portal(canvas: Canvas, subject: Subject) -> None:
    """Paint splenic vein and portal vein up to the first fork in the liver."""
    place = subject.places["portal"]
    splenic = place.tube(
        [(-92, -2, 52), (-64, 14, 40), (-36, 34, 28), (-8, 45, 17), (14, 46, 6)], (4.6, 4.8, 5, 5.2, 5.8)
    )
    portal = place.tube([(14, 45, -8), (15, 46, 8), (30, 45, 30), (50, 44, 50)], (6.2, 7.2, 7.5, 7))
    over = SOFT & ~(_KIDNEYS | tissues_where(names=("aorta", "postcava", "spleen")))
    canvas.paint(splenic, "portal_vein", over)
    canvas.paint(portal, "portal_vein", over)
    for end in ((72.0, 40.0, 58.0), (34.0, 58.0, 66.0)):
        canvas.paint(place.tube([(50, 44, 50), end], (6, 4.5)), "portal_vein", over)


def _gallbladder(canvas: Canvas, subject: Subject) -> None:
    """Paint the gallbladder, a pear in the liver's lower face."""
    place, rng = subject.places["gallbladder"], subject.key.rng("gallbladder")
    fill = rng.uniform(0.85, 1.15)
    pear = place.tube([(82, 90, -29), (73, 79, -13), (63, 64, 5), (55, 53, 18)], (12 * fill, 14 * fill, 10.5 * fill, 5))
    over = FAT | _LIVER
    _with_halo(canvas, pear, "gallbladder_wall", over, 1.0)
    canvas.paint(pear, "gallbladder", tissues_where(names=("gallbladder_wall",)), grow=-1.6)


def _pelvic(canvas: Canvas, subject: Subject) -> None:
    """Paint bladder and prostate or uterus; a full bladder rises from its floor."""
    place = subject.places["bladder"]
    semi = np.array([37.0, 31.0, 29.0]) * place.size
    floor = -250.0 + place.shift[2]
    x, y = place.shift[0], 28.0 + place.shift[1]
    bladder = Ellipsoid((x, y, floor + semi[2]), (semi[0], semi[1], semi[2]), (12.0, 0.0, place.tilt[1]))
    if subject.sex == "f":
        _uterus(canvas, subject.places["uterus"], lift=1.2 * float(semi[2] - 29.0))
    else:
        prostate = subject.places["prostate"]
        gland = prostate.ellipsoid((x, 14, floor - 10), (26, 20, 19), (-15, 0, 0))
        _with_halo(canvas, gland, "prostate", FAT, 2.0)
    canvas.paint_coats(
        bladder,
        Coat("visceral_fat", FAT | tissues_where(names=("uterus",)), 2.5),
        Coat("bladder_wall", FAT),
        Coat("bladder_urine", tissues_where(names=("bladder_wall",)), -3.0),
    )


def _uterus(canvas: Canvas, place: Placement, lift: float) -> None:
    """Paint the uterus behind and above the bladder, lifted by as much as that is full."""
    corpus = place.ellipsoid((0, 4, -192 + lift), (28, 22, 31), (38, 0, 0))
    cervix = place.tube([(0, 0, -208 + lift), (0, -6, -240)], (15, 13))
    for shape in (corpus, cervix):
        canvas.paint(shape, "uterus", FAT)


Step = Callable[[Canvas, Subject], None]

STEPS: tuple[Step, ...] = (
    _liver,
    _spleen,
    _stomach,
    _great_vessels,
    _esophagus,
    _kidneys,
    _adrenals,
    _duodenum,
    _pancreas,
    _portal,
    _gallbladder,
    _renal_vessels,
    _pelvic,
)
"""Paint order: a later step displaces earlier organs where its ``over`` table allows."""


def paint_organs(canvas: Canvas, subject: Subject) -> None:
    """Paint all organs into a cavity that holds only fat."""
    for step in STEPS:
        step(canvas, subject)
