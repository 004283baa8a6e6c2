"""Stored cases outside a workspace's sources: the same images with other labels."""

from dataclasses import dataclass
from pathlib import Path

from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.store import arrays


@dataclass(frozen=True)
class DerivedCases:
    """Cases under a folder of their own, found by the keys they have in the workspace.

    Parameters
    ----------
    folder
        Holds ``source/case``, each as a workspace stores it.
    """

    folder: Path

    def case_folder(self, key: str) -> Path:
        """Folder of the case ``source/case``."""
        return self.folder / key

    def is_there(self, key: str) -> bool:
        """Whether the case is there."""
        return arrays.is_case(self.case_folder(key))

    def holds(self, key: str, digest: str) -> bool:
        """Whether the case is there, with this digest."""
        return self.is_there(key) and self.read_facts(key).digest == digest

    def write(self, case: Case) -> None:
        """Write a case, whole or not at all.

        Raises
        ------
        CaseError
            If it cannot be written.
        """
        foreground = Foreground.of(case.label, case.facts.groups.n_structures)
        arrays.write_case(self.case_folder(case.facts.key), self.folder / ".incoming", case, foreground)

    def read_facts(self, key: str) -> CaseFacts:
        """Facts of one case, without its voxels."""
        return arrays.read_facts([self.case_folder(key)])[0]

    def open_case(self, key: str) -> arrays.OpenCase:
        """One case of which parts can be read."""
        return arrays.open_case(self.case_folder(key))

    def read_foreground(self, key: str) -> Foreground:
        """Labelled voxels of one case."""
        return arrays.read_foreground(self.case_folder(key))
