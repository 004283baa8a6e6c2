"""``abdoseg.json`` of an export of cases: where they come from and what the numbers mean."""

import json
from collections.abc import Mapping
from importlib.metadata import version

from abdoseg.sharing.parts import CasePlan, Record


def summary_text(plan: CasePlan, records: Mapping[str, Record]) -> str:
    """Return the JSON text of structures and cases."""
    facts = {
        "abdoseg": version("abdoseg"),
        "structures": [{"id": i, "name": name} for i, name in enumerate(plan.anatomy.names, start=1)],
        "cases": dict(records),
    }
    return json.dumps(facts, indent=1) + "\n"
