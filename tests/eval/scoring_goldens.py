"""Recorded inputs and outputs of official benchmark scorers."""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "goldens" / "scoring"


def load_cases(suite):
    """The cases of one suite, such as `geneval_verdicts`; each has an `id`."""
    return json.loads((FOLDER / f"{suite}.dev.json").read_text())["cases"]
