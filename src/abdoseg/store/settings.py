"""What all cases of a workspace share, and the file that says so."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from abdoseg.anatomy import ABDOMEN, Anatomy, Structure
from abdoseg.errors import UnknownNameError, WorkspaceError
from abdoseg.own_structures import OwnStructure, faults_of_structures
from abdoseg.value_errors import why_unreadable
from abdoseg.windows import Windows

WORKSPACE_VERSION = 1
SETTINGS_FILE = "abdoseg.toml"


class Settings(BaseModel):
    """What all cases of a workspace share; fixed when the workspace is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=WORKSPACE_VERSION, description="format of the workspace")
    structures: tuple[str, ...] = Field(default=ABDOMEN.names, description="structures in channel order")
    own_structures: tuple[OwnStructure, ...] = Field(
        default=(), description="what the paper's list does not say of them: titles, abbreviations, colours, partners"
    )
    spacing_mm: float = Field(default=2.0, gt=0, le=50, description="isotropic target spacing")
    windows: Windows = Field(default=Windows(), description="intensities that become 0 and 1")
    split_seed: int = Field(default=0, ge=0, description="seed of the train/val/test split")

    @classmethod
    def of(cls, structures: Sequence[Structure], **values: Any) -> "Settings":
        """Return settings with these structures; ``values`` are the other fields."""
        own = [OwnStructure(**asdict(one)) for one in structures if one not in ABDOMEN.structures]
        return cls(structures=tuple(one.name for one in structures), own_structures=tuple(own), **values)

    @model_validator(mode="after")
    def _structures_fit_together(self) -> "Settings":
        strange = {one.name for one in self.own_structures} - set(self.structures)
        if strange:
            msg = f"own_structures: found {', '.join(sorted(strange))}, which structures does not list"
            raise ValueError(msg)
        try:
            faults = [*faults_of_structures(self.anatomy.structures)]
        except UnknownNameError as error:  # Pydantic turns only ValueErrors into faults of a field.
            raise ValueError(str(error)) from error
        if faults:
            raise ValueError("structures: " + "; ".join(faults))
        return self

    @property
    def anatomy(self) -> Anatomy:
        """The structures, parsed."""
        own = {one.name: one.completed(index) for index, one in enumerate(self.own_structures)}
        return Anatomy(tuple(own.get(name) or ABDOMEN.structure(ABDOMEN.id_of(name)) for name in self.structures))

    @property
    def known(self) -> Anatomy:
        """Structures that a card may name: these, and the paper's, of which a workspace may leave some out."""
        others = [one for one in ABDOMEN.structures if one.name not in self.structures]
        return Anatomy((*self.anatomy.structures, *others))

    def to_toml(self) -> str:
        """Return the text of ``abdoseg.toml``; older versions read it where no structure is the user's own."""
        facts = self.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps({key: value for key, value in facts.items() if key != "own_structures" or value})

    def digest(self) -> str:
        """Return a hash of what the voxels and labels of every stored case depend on."""
        facts = self.model_dump_json(include={"structures", "spacing_mm", "windows"})
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def read_settings(file: Path) -> Settings:
    """Return the settings of a workspace.

    Raises
    ------
    WorkspaceError
        If the file is damaged, or of another version.
    """
    try:
        settings = Settings.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # of bytes that are no text, of TOML, of its values
        msg = f"{file}: cannot be read ({why_unreadable(error)}); mend it or choose another workspace"
        raise WorkspaceError(msg) from error
    if settings.version != WORKSPACE_VERSION:
        msg = f"{file}: workspace format {settings.version}, expected {WORKSPACE_VERSION}; use the abdoseg that made it"
        raise WorkspaceError(msg)
    return settings
