"""What the benchmarks of learning share: runs through the command line, and a file of results in which nothing is run twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]


class Results:
    """Rows of results, one JSON line each; `keys` name what makes a row unique."""

    def __init__(self, path: Path, *keys: str) -> None:
        self.path, self.keys = path, keys

    def rows(self) -> dict[tuple, Row]:
        """(values of the keys) -> row."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return {tuple(row[key] for key in self.keys): row for row in map(json.loads, lines)}

    def add(self, row: Row) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            ", ".join(f"{key} {value}" if key != self.keys[0] else str(value) for key, value in row.items()), flush=True
        )


def vitral(
    command: str,
    data: str,
    options: str,
    *,
    seed: int,
    out: Path,
    minutes: float | None = None,
    threads: int | None = None,
) -> Row:
    """One run of the command line, for so many minutes if the options have no other budget; its test top-1 if it classifies, and its epochs."""
    words = [
        sys.executable,
        "-m",
        "vitral",
        command,
        data,
        *options.split(),
        *([] if minutes is None else ["--time", f"{60 * minutes:g}s"]),
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    if not (out / "metrics.jsonl").exists():  # the folder of a cross-validation
        return {}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    row: Row = {"epochs": round([line["epoch"] for line in lines if line["event"] == "train"][-1], 1)}
    if (out / "scores.json").exists():
        row = {"top1": json.loads((out / "scores.json").read_text())["top1"], **row}
    return row


def summary(scores: list[float]) -> str:
    """Shares as a mean and a deviation in percent."""
    percent = [100 * score for score in scores]
    spread = f" ± {stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{mean(percent):.2f}{spread} (n = {len(percent)})" if percent else ""
