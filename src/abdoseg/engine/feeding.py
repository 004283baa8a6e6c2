"""From numbers of examples to batches on the device: this process's share of every step, some steps ahead."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from abdoseg.augmentation.apply import apply_intensity
from abdoseg.config import TrainConfig, check_shares, share
from abdoseg.device_patches import DeviceBatch, DevicePatches
from abdoseg.devices import available_cores
from abdoseg.engine.fit import Share
from abdoseg.engine.loader import Loader, Tell
from abdoseg.engine.precision import storage_type
from abdoseg.engine.ranks import Ranks
from abdoseg.methods.parts import TorchBatch
from abdoseg.patches import Batch, PatchStream, collate


class Feed:
    """The shares of one process.

    Parameters
    ----------
    stream
        The run's examples; example ``step * batch + i`` is the i-th of a step's batch.
    config
        Batch, accumulation, threads, caches, precision.
    ranks
        Which part of each batch is this process's.
    sources
        Names of the task's sources, in its order.

    Raises
    ------
    ConfigError
        If a batch cannot be shared evenly.
    """

    def __init__(self, stream: PatchStream, config: TrainConfig, ranks: Ranks, sources: Sequence[str] = ()) -> None:
        self._stream, self._config, self._device = stream, config, ranks.device
        self._sources = {name: index for index, name in enumerate(sources)}
        check_shares(config, ranks.place.size)
        numbers = share(ranks.place.rank, ranks.place.size, config.batch)
        each = len(numbers) // config.accumulate
        self._parts = [numbers[first : first + each] for first in range(0, len(numbers), each)]
        self.on_device: DevicePatches | None = None
        if config.device_cache_mb:
            self.on_device = DevicePatches(stream, ranks.device, config.device_cache_mb * 2**20)
        cores = max(1, available_cores() // ranks.place.size)
        # A GPU leaves the cores to the patches; on a CPU the network wants them.
        threads = config.workers or (min(8, cores) if ranks.device.type == "cuda" else max(1, cores // 4))
        self._loader = Loader(self._make, threads, timeout_seconds=config.loader_timeout_seconds)

    @property
    def waited_seconds(self) -> float:
        """Seconds that patches were waited for so far."""
        return self._loader.waited_seconds

    def run(self, first: int, stop: int) -> Generator[Share]:
        """Yield the shares of steps ``first`` to ``stop - 1``.

        Raises
        ------
        RunError, WorkspaceError
            If a case cannot be read, or not in time; the message names it.
        """
        for step, batches in enumerate(self._loader.run(first, stop), start=first):
            start = step * self._config.batch
            numbers = [[start + i for i in part] for part in self._parts]
            parts = tuple(self._ready(batch, numbers[i]) for i, batch in enumerate(batches))
            yield Share(parts, tuple(case for batch in batches for case in batch.cases))

    def caches(self) -> str:
        """Return what the caches hold, for people; empty without any."""
        told = [str(self._stream.cache)] if self._config.cache_mb else []
        return "; ".join(told + ([str(self.on_device)] if self.on_device is not None else []))

    def _make(self, step: int, tell: Tell) -> list[Batch | DeviceBatch]:
        """Cut a step's patches; runs in a thread of the loader."""
        start = step * self._config.batch
        made: list[Batch | DeviceBatch] = []
        if self.on_device is not None:
            for numbers in self._parts:
                tell(" or ".join(dict.fromkeys(self._stream.case_of(start + i) for i in numbers)))
                made.append(self.on_device.batch([start + i for i in numbers]))
            return made
        for numbers in self._parts:
            patches = []
            for i in numbers:
                tell(self._stream.case_of(start + i))
                patches.append(self._stream.example(start + i))
            made.append(collate(patches))
        return made

    def _ready(self, batch: Batch | DeviceBatch, numbers: Sequence[int]) -> TorchBatch:
        """Return a batch on the device, its intensities changed, in the type and layout that the weights have."""
        if isinstance(batch, DeviceBatch):
            image, label, group, annotated = batch.image, batch.label, batch.group, batch.annotated
        else:
            arrays = (batch.image, batch.label, batch.group, batch.annotated)
            image, label, group, annotated = (self._moved(torch.from_numpy(array)) for array in arrays)
            image = apply_intensity(image, batch.intensity, group >= 0 if batch.intensity else None)
        image = image.to(storage_type(self._config.precision))
        if self._config.channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        # Few numbers that are looked at one by one: they stay in main memory.
        source = torch.tensor([self._sources.get(case.partition("/")[0], -1) for case in batch.cases])
        drawn = torch.tensor([-1 if structure is None else structure for structure in batch.structures])
        return TorchBatch(image, label, group, annotated, source, torch.tensor(numbers), drawn)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor
