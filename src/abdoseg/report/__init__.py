"""The report of a run: one HTML file that needs nothing else."""

from abdoseg.report.page import Section, render
from abdoseg.report.shown import ShownCase
from abdoseg.report.unscored import left_out

__all__ = ["Section", "ShownCase", "left_out", "render"]
