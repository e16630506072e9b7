"""Parameters and multiply-adds of one image for each row of the zoo, as `vitral.models.measure` finds them (a test holds that)."""

import csv
from importlib import resources

with resources.files("vitral.models").joinpath("sizes.csv").open(encoding="utf-8") as _table:
    SIZES: dict[str, tuple[int, int]] = {
        row["model"]: (int(row["parameters"]), int(row["multiply_adds"])) for row in csv.DictReader(_table)
    }
