"""Which native intensities become 0 and 1."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Windows(BaseModel):
    """Which native intensities become 0 and 1 (paper, section 4.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ct_hu: tuple[float, float] = Field(default=(-400.0, 400.0), description="HU")
    mr_percentiles: tuple[float, float] = Field(default=(1.0, 99.0), description="percent of the voxels above 0")

    @model_validator(mode="after")
    def _increasing(self) -> "Windows":
        if not (self.ct_hu[0] < self.ct_hu[1] and 0 <= self.mr_percentiles[0] < self.mr_percentiles[1] <= 100):
            msg = f"windows: found {self.ct_hu} HU and {self.mr_percentiles} %, expected low < high"
            raise ValueError(msg)
        return self
