"""Cards: what a source holds, how its files are found, what its annotators looked for.

A card is one TOML file; adding a source is adding a card to ``registry/``. Unknown keys are refused, so that a slip of
the pen is an error and never a setting that silently does nothing.
"""

from abdoseg.cards.card import Card, merged_targets, structures_of
from abdoseg.cards.parts import (
    Access,
    Expected,
    LabelTarget,
    Layout,
    OrientationTest,
    Sparse,
    Split,
    Table,
    Unlabelled,
    Variant,
    names_in,
    path_pattern,
)
from abdoseg.cards.registry import (
    card_from,
    check_structures,
    expand_aliases,
    list_cards,
    load_card,
    load_card_file,
    load_cards,
    registry_folder,
    with_labels,
)

__all__ = [
    "Access",
    "Card",
    "Expected",
    "LabelTarget",
    "Layout",
    "OrientationTest",
    "Sparse",
    "Split",
    "Table",
    "Unlabelled",
    "Variant",
    "card_from",
    "check_structures",
    "expand_aliases",
    "list_cards",
    "load_card",
    "load_card_file",
    "load_cards",
    "merged_targets",
    "names_in",
    "path_pattern",
    "registry_folder",
    "structures_of",
    "with_labels",
]
