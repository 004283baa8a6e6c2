"""Find repeated scans by content, however they were cropped, turned, re-windowed or resampled.

:func:`signature` makes a few kilobytes of a scan, once; :func:`candidate_pairs` names the pairs of signatures that may
be the same scan, among thousands in seconds; :func:`verify` looks at the voxels of a pair and decides;
:func:`groups` joins the pairs to sets.
"""

from abdoseg.duplicates.candidates import candidate_pairs, groups
from abdoseg.duplicates.signature import Signature, signature
from abdoseg.duplicates.verify import Match, verify

__all__ = ["Match", "Signature", "candidate_pairs", "groups", "signature", "verify"]
