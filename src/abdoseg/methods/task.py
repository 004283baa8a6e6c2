"""What a model is to learn, in plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What a model is to learn.

    Parameters
    ----------
    structures
        Names of structures 1..N.
    sources
        Name of each training source and the ids it annotates; needed by methods with a head a source.
    decoder_per_source
        Whether each source has a decoder of its own, too.
    text_embeddings
        ``learned``, or where fixed text embeddings of the structures come from.
    passes_per_structure
        Whether prediction runs the whole network once for each structure, as was published.
    """

    structures: tuple[str, ...]
    sources: tuple[tuple[str, tuple[int, ...]], ...] = ()
    decoder_per_source: bool = False
    text_embeddings: str = "learned"
    passes_per_structure: bool = False
