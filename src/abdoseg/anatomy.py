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


# Colours: distinct in hue AND lightness so that neighbours in the body stay apart for colour-blind readers.
ABDOMEN = Anatomy(
    (
        Structure("spleen", "spleen", "Sp", "#7b3294"),
        Structure("right_kidney", "right kidney", "RK", "#e6ab02", "left_kidney"),
        Structure("left_kidney", "left kidney", "LK", "#fdd769", "right_kidney"),
        Structure("gallbladder", "gallbladder", "GB", "#1b7837"),
        Structure("esophagus", "esophagus", "Eso", "#f4a3c0"),
        Structure("liver", "liver", "L", "#a6461f"),
        Structure("stomach", "stomach", "St", "#66c2e8"),
        Structure("aorta", "aorta", "A", "#d7191c"),
        Structure("postcava", "postcava (IVC)", "PC", "#2c4fa3"),
        Structure("pancreas", "pancreas", "Pan", "#a6d96a"),
        Structure("right_adrenal_gland", "right adrenal gland", "RAG", "#00b3a1", "left_adrenal_gland"),
        Structure("left_adrenal_gland", "left adrenal gland", "LAG", "#8fe3d5", "right_adrenal_gland"),
        Structure("duodenum", "duodenum", "Duo", "#d9a5f0"),
        Structure("bladder", "bladder", "B", "#fff2ae"),
        Structure("prostate_uterus", "prostate/uterus", "PU", "#8c6d46"),
        Structure("portal_splenic_vein", "portal and splenic vein", "PSV", "#4aa8ff"),
    )
)
"""The paper's 16 structures: the default of every workspace."""
