"""The structures: names, abbreviations, colours and left/right partners, in channel order.

The order is the paper's (section 4.1); channel 0 of every network output is background. N is data: another
:class:`Anatomy` can be built from any list of structures, and nothing else in the package knows the number 16.
"""

from dataclasses import dataclass
from functools import cached_property

from abdoseg.errors import unknown_name


@dataclass(frozen=True)
class Structure:
    """One anatomical structure.

    Parameters
    ----------
    name
        Identifier used in cards, tables and files, lower case with underscores.
    title
        The name for people.
    abbreviation
        The paper's short name, for narrow tables.
    colour
        ``#rrggbb``, the same wherever the structure is shown.
    partner
        Name of the structure on the other side of the body, or ``None``.
    """

    name: str
    title: str
    abbreviation: str
    colour: str
    partner: str | None = None


@dataclass(frozen=True)
class Anatomy:
    """An ordered list of structures; the structure with id ``i`` is ``structures[i - 1]``, 0 is background."""

    structures: tuple[Structure, ...]

    def __len__(self) -> int:
        return len(self.structures)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in id order, background not included."""
        return tuple(structure.name for structure in self.structures)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names, start=1)}

    def id_of(self, name: str) -> int:
        """Return the id (1..N) of a structure.

        Raises
        ------
        UnknownNameError
            If no structure has this name.
        """
        if name not in self._ids:
            raise unknown_name("structure", name, list(self.names))
        return self._ids[name]

    def ids_of(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Return the ids of several structures, in the order given."""
        return tuple(self.id_of(name) for name in names)

    def structure(self, structure_id: int) -> Structure:
        """Return the structure with id ``structure_id`` in 1..N."""
        return self.structures[structure_id - 1]

    def subset(self, names: tuple[str, ...]) -> "Anatomy":
        """Return an anatomy of the named structures only, in the order given."""
        return Anatomy(tuple(self.structure(self.id_of(name)) for name in names))


# Colours: found by a search for 16 whose nearest two are far apart by CIEDE2000, for normal vision and for protanopia,
# deuteranopia and tritanopia as Machado et al. (2009) simulate them, severity 1. In each kind of vision any two are at
# least 13.5 apart, those of structures that touch at least 16; none is too dark for a scan or too pale for a page, none
# grey. tests/test_anatomy.py holds that. The aorta is red, the vena cava blue, partners are related in hue.
ABDOMEN = Anatomy(
    (
        Structure("spleen", "spleen", "Sp", "#a1f1df"),
        Structure("right_kidney", "right kidney", "RK", "#883187", "left_kidney"),
        Structure("left_kidney", "left kidney", "LK", "#a69cff", "right_kidney"),
        Structure("gallbladder", "gallbladder", "GB", "#d3e8ad"),
        Structure("esophagus", "esophagus", "Eso", "#dfcbff"),
        Structure("liver", "liver", "L", "#f56d10"),
        Structure("stomach", "stomach", "St", "#5900fa"),
        Structure("aorta", "aorta", "A", "#cb0005"),
        Structure("postcava", "postcava (IVC)", "PC", "#746af2"),
        Structure("pancreas", "pancreas", "Pan", "#e9ea00"),
        Structure("right_adrenal_gland", "right adrenal gland", "RAG", "#87bb9d", "left_adrenal_gland"),
        Structure("left_adrenal_gland", "left adrenal gland", "LAG", "#178c83", "right_adrenal_gland"),
        Structure("duodenum", "duodenum", "Duo", "#c48fb3"),
        Structure("bladder", "bladder", "B", "#788f66"),
        Structure("prostate_uterus", "prostate/uterus", "PU", "#a70f50"),
        Structure("portal_splenic_vein", "portal and splenic vein", "PSV", "#00645a"),
    )
)
"""The paper's 16 structures: the default of every workspace."""
