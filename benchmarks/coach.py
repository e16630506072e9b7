"""What the coach says of small real runs of which it is known what is wrong with them, and of healthy ones.

    python benchmarks/coach.py                                    # the table, from the recorded logs
    python benchmarks/coach.py record WORK [--only NAME ...]      # train the runs in the folder WORK, and record their logs again
    python benchmarks/coach.py fresh WORK                         # train others, on which no threshold was chosen, and print their table

The data are subsets of the digits, Fashion-MNIST, elpv and the cut-outs of benchmarks/cutouts.py, of fresh ones also drawings; each run is spoiled on
purpose (or not) and trained by `vitral train`. Of each there is kept what the coach reads: run.json, recipe.toml and metrics.jsonl, numbers to five
digits. All runs together took about a quarter of an hour on two cores. The table counts for each remark the runs in which it was right, wrong and
missing.
"""

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

RECORDED = Path(__file__).parents[1] / "tests" / "guidance" / "coach_runs.json.gz"
SMALL = "--dim 64 --depth 4 --num-heads 4 --precision fp32 --workers 0"
PLAIN = "--crop none --hflip 0 --smoothing 0"  # the same pixels every time
AT64 = f"{SMALL} --image-size 64 --patch-size 8"
AT28 = f"{SMALL} --patch-size 4"
AT8 = f"{SMALL} --patch-size 2"


class Case(NamedTuple):
    """One run: its data (`made`), its flags, and the remarks of which one is to come, none for a healthy run."""

    data: str
    flags: str
    expected: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    """Remarks that are true of the run too."""
    hidden: bool = False
    """Whether so few images do not show the fault, so that silence is expected and counts as missing."""


CASES = {
    "cut-outs, the same pixels 40 times": Case("cutouts", f"{AT64} {PLAIN} --epochs 40", ("overfitting",)),
    "cut-outs, cropped, 60 epochs": Case("cutouts", f"{AT64} --epochs 60", ("overfitting",)),
    "300 of Fashion-MNIST, 40 epochs": Case("fashion:300", f"{AT28} {PLAIN} --epochs 40", ("overfitting",)),
    "300 of elpv, 40 epochs": Case("elpv:300", f"{AT64} {PLAIN} --epochs 40", ("overfitting",)),
    "120 digits, 40 epochs": Case("digits:120", f"{AT8} {PLAIN} --epochs 40", ("overfitting",)),
    "cut-outs, a rate 300 times too high": Case(
        "cutouts", f"{AT64} --optimizer adamw --lr 0.3 --epochs 30", ("rate_high", "stuck")
    ),
    "300 of Fashion-MNIST, a rate 1,000 times too low": Case(
        "fashion:300", f"{AT28} --optimizer adamw --lr 1e-6 --epochs 30", ("rate_low",)
    ),
    "cut-outs, shuffled labels": Case("cutouts-shuffled", f"{AT64} {PLAIN} --epochs 40", ("memorised", "stuck")),
    "300 of Fashion-MNIST, half of validation in training": Case(
        "fashion-leak", f"{AT28} --epochs 8", ("leak",)
    ),
    "1,000 digits, 40 % of the labels wrong": Case("digits-noise", f"{AT8} --epochs 30", ("noise",), hidden=True),
    "elpv as large photographs": Case("elpv-large", f"{AT64} --steps 60 --batch-size 4", ("starved",)),
    "3,000 of Fashion-MNIST at 84 pixels in 6 seconds": Case(
        "fashion:3000", f"{SMALL} --image-size 84 --patch-size 4 --time 6s", ("budget",)
    ),
    "300 of Fashion-MNIST, validation of a class that training hardly has": Case(
        "fashion-unlike", f"{AT28} {PLAIN} --epochs 30", ("unlike",)
    ),
    "digits": Case("digits:1797", f"{AT8} --epochs 20"),
    "400 digits": Case("digits:400", f"{AT8} --epochs 20"),
    "3,000 of Fashion-MNIST": Case("fashion:3000", f"{AT28} --epochs 10"),
    "1,500 of elpv": Case("elpv:1500", f"{AT64} --epochs 6"),
    "cut-outs, 10 epochs": Case("cutouts", f"{AT64} --epochs 10"),
}  # fmt: skip

FRESH = {  # run once, after the thresholds were chosen, on pictures that no other case has
    "drawings, 12 epochs": Case("drawings", f"{AT64} --epochs 12"),
    "drawings at 128 pixels, 8 epochs": Case("drawings", f"{SMALL} --image-size 128 --patch-size 16 --epochs 8"),
    "things, 12 epochs": Case("things", f"{AT64} --epochs 12"),
    "600 other images of Fashion-MNIST, 12 epochs": Case("fashion:600:9", f"{AT28} --epochs 12"),
    "600 other images of elpv, 8 epochs": Case("elpv:600:9", f"{AT64} --epochs 8"),
    "drawings, the same pixels 40 times": Case("drawings", f"{AT64} {PLAIN} --epochs 40", ("overfitting",)),
    "things, cropped, 60 epochs": Case("things", f"{AT64} --epochs 60", ("overfitting",)),
    "200 other digits, 40 epochs": Case("digits:200:9", f"{AT8} {PLAIN} --epochs 40", ("overfitting",)),
    "drawings, shuffled labels": Case("drawings-shuffled", f"{AT64} {PLAIN} --epochs 40", ("memorised", "stuck")),
    "drawings, half of validation in training": Case("drawings-leak", f"{AT64} --epochs 12", ("leak",)),
    "things, a rate 300 times too high": Case(
        "things", f"{AT64} --optimizer adamw --lr 0.3 --epochs 30", ("rate_high", "stuck")
    ),
    "drawings, a rate 1,000 times too low": Case(
        "drawings", f"{AT64} --optimizer adamw --lr 1e-6 --epochs 20", ("rate_low",)
    ),
}  # fmt: skip
FOLDERS = {  # of drawings.py's package
    "drawings": (
        "animals/mammals", "animals/birds", "animals/bugs", "food/fruit", "food/desserts", "food/beverages", "transportation/vehicles", "plants"
    ),
    "things": ("buildings", "education", "electronics", "office", "tools", "decorations"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    again = commands.add_parser("record")
    again.add_argument("work", type=Path)
    again.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES))
    commands.add_parser("fresh").add_argument("work", type=Path)
    args = parser.parse_args()
    if args.command == "fresh":
        print(table({name: trained(name, args.work) for name in FRESH}))
        return
    if args.command == "record":
        runs = recorded() if RECORDED.exists() else {}
        for name in args.only:
            runs[name] = trained(name, args.work)
            write({name: runs[name] for name in CASES if name in runs})
            print(f"{name}: {said(runs[name])}", flush=True)
    print(table(recorded()))


def recorded() -> dict[str, dict[str, Any]]:
    """By name, each run's `described` (run.json), `recipe` (TOML) and `lines` (metrics.jsonl)."""
    runs: dict[str, dict[str, Any]] = json.loads(gzip.decompress(RECORDED.read_bytes()))
    return runs


def write(runs: dict[str, dict[str, Any]]) -> None:
    RECORDED.write_bytes(gzip.compress(json.dumps(runs, separators=(",", ":")).encode(), mtime=0))


def trained(name: str, work: Path) -> dict[str, Any]:
    """Train a case in a process of its own, in work; and what is kept of it."""
    case = {**CASES, **FRESH}[name]
    data = made(case.data, work / "data")
    folder = work / "runs" / "".join(c if c.isalnum() else "-" for c in name)
    command = [sys.executable, "-m", "vitral", "train", str(data), "--out", str(folder), *case.flags.split()]
    if not (folder / "scores.json").exists():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    described = json.loads((folder / "run.json").read_text())
    kept = ("name", "images", "labels", "foreseen", "seed", "machine")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "described": {key: described[key] for key in kept if key in described}
        | {"data": case.data, "command": f"vitral train {case.data} {case.flags}"},
        "recipe": (folder / "recipe.toml").read_text(),
        "lines": [rounded(line) for line in lines if line["event"] in ("data", "train", "val")],
    }


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def said(run: dict[str, Any]) -> list[str]:
    """The kinds of the coach's remarks, as they come while the run trains."""
    reader = coach(run)
    return [remark.kind for line in run["lines"] for remark in reader.see(line)]


def coach(run: dict[str, Any]) -> Any:
    """A coach that has not seen a line yet."""
    from vitral.guidance.coach.coach import Coach
    from vitral.training.toml import read_recipe

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "recipe.toml").write_text(run["recipe"])
        recipe = read_recipe(Path(folder) / "recipe.toml", stored=True)
    return Coach(recipe, run["described"] | {"folder": "runs/x"})


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Markdown: what was said of each run, and how often each remark was right, wrong and missing."""
    lines = ["| run | expected | said |", "|---|---|---|"]
    right: dict[str, int] = {}
    wrong: dict[str, int] = {}
    missing: dict[str, int] = {}
    for name, run in runs.items():
        case, kinds = {**CASES, **FRESH}[name], said(run)
        lines.append(f"| {name} | {' or '.join(case.expected) or 'silence'} | {', '.join(kinds) or 'nothing'} |")
        for kind in kinds:
            counts = right if kind in (*case.expected, *case.also) else wrong
            counts[kind] = counts.get(kind, 0) + 1
        if case.expected and not set(case.expected) & set(kinds):
            missing[case.expected[0]] = missing.get(case.expected[0], 0) + 1
    lines += ["", "| remark | right | wrong | missing |", "|---|---|---|---|"]
    for kind in sorted({*right, *wrong, *missing}):
        lines.append(f"| {kind} | {right.get(kind, 0)} | {wrong.get(kind, 0)} | {missing.get(kind, 0)} |")
    return "\n".join(lines)


def made(kind: str, root: Path) -> Path:
    """The data of a case: a folder of class folders, or a table beside its images."""
    out = root / kind.replace(":", "-")
    if out.exists():
        return out / "table.csv" if (out / "table.csv").exists() else out
    name, _, count = kind.partition(":")
    source = name.partition("-")[0]
    if source in ("cutouts", *FOLDERS):
        folder = root / source
        if not folder.exists():
            cut_out(source, folder)
        if name == source:
            return folder
        paths = sorted(path.resolve() for path in folder.rglob("*.*"))
        labels: list[object] = [path.parent.name for path in paths]
        if name.endswith("-leak"):
            return tabled(out, leaking(list(zip(paths, labels, splits(len(paths)), strict=True))))
        shuffled = np.random.default_rng(0).permutation(labels).tolist()
        return tabled(out, zip(paths, shuffled, splits(len(paths)), strict=True))
    sizes = {"fashion-leak": 300, "fashion-unlike": 330, "digits-noise": 1000, "elpv-large": 240}
    count, _, seed = count.partition(":")
    images, targets = some(source, int(count or sizes[name]), int(seed or 0))
    large = 8 if name == "elpv-large" else 1
    paths = [saved(out / "images" / f"{i}.png", image, large) for i, image in enumerate(images)]
    parts = splits(len(paths))
    rng = np.random.default_rng(1)
    if name == "digits-noise":
        wrong = rng.random(len(targets)) < 0.4
        targets = np.where(wrong, rng.integers(0, 10, len(targets)), targets)
    if name == "fashion-unlike":  # of class 0 training has a hundredth, validation has nothing else
        parts = ["val" if k == 0 else "test" if p == "test" else "train" for k, p in zip(targets, parts, strict=True)]
        first = [i for i, k in enumerate(targets) if k == 0][:3]
        parts = ["train" if i in first else p for i, p in enumerate(parts)]
    rows = list(zip(paths, targets.tolist(), parts, strict=True))
    return tabled(out, leaking(rows) if name == "fashion-leak" else rows)


def leaking(rows: list[tuple[Path, object, str]]) -> list[tuple[Path, object, str]]:
    """As many training images again as there are validation images, among these."""
    shared = [row for row in rows if row[2] == "train"][: sum(part == "val" for _, _, part in rows)]
    return rows + [(path, label, "val") for path, label, _ in shared]


def cut_out(source: str, folder: Path) -> None:
    """The cut-outs of cutouts.py, or drawings."""
    if source == "cutouts":
        subprocess.run([sys.executable, Path(__file__).with_name("cutouts.py"), folder], check=True)
    else:
        import drawings

        drawings.write(folder, {label: sorted((drawings.PACKAGE / label).rglob("*.png")) for label in FOLDERS[source]})


def some(source: str, count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """So many images of a built-in data set and their classes; other images for another seed, a few of them maybe the same."""
    from vitral.data.listers import list_data
    from vitral.data.options import DataOptions

    listing = list_data({"fashion": "fashion-mnist"}.get(source, source), DataOptions())
    rows = np.random.default_rng(seed).permutation(len(listing.images.names))[:count]
    return [listing.images.read(int(i), None, None).numpy() for i in rows], listing.targets.values[rows]


def saved(path: Path, pixels: np.ndarray, times: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    picture = picture.resize((picture.width * times, picture.height * times)) if times > 1 else picture
    picture.save(path)
    return path.resolve()


def splits(count: int) -> list[str]:
    return np.random.default_rng(2).choice(["train", "val", "test"], count, p=[0.7, 0.1, 0.2]).tolist()


def tabled(out: Path, rows: Iterable[tuple[Path, object, str]]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split"])
        writer.writerows((path, f"class {label}", split) for path, label, split in rows)
    return out / "table.csv"


if __name__ == "__main__":
    main()
