"""Experiments: which trainings fill which rows of which table, and what the paper found. Data over code.

``experiments/<id>.toml`` is one training of the paper with all rows it fills; ``experiments/tables/<id>.toml`` is how a
table looks. A file of the user's own holds a table and its experiments (:func:`load_study`). To add one to those that
ship with the package, add a file; a table's cell must be filled by one experiment.
"""

from abdoseg.experiments.files import experiments_folder, list_tables, load_study
from abdoseg.experiments.model import Column, Experiment, Fill, Scoring, Study, Table
from abdoseg.experiments.notes import Ground, notes_of
from abdoseg.experiments.options import Options, missing_names
from abdoseg.experiments.page import Grid, grids, to_csv, to_json, to_markdown
from abdoseg.experiments.results import Cell, Figure, Page, RowResult, cells_of, figure_of, figures_of

__all__ = [
    "Cell",
    "Column",
    "Experiment",
    "Figure",
    "Fill",
    "Grid",
    "Ground",
    "Options",
    "Page",
    "RowResult",
    "Scoring",
    "Study",
    "Table",
    "cells_of",
    "experiments_folder",
    "figure_of",
    "figures_of",
    "grids",
    "list_tables",
    "load_study",
    "missing_names",
    "notes_of",
    "to_csv",
    "to_json",
    "to_markdown",
]
