"""How far the doctor's suspects are to be trusted: labels changed at random, what it then accuses, and what it says of that.

    OMP_NUM_THREADS=1 python benchmarks/suspects.py CUTOUTS [--seeds 3]

CUTOUTS is the folder that benchmarks/cutouts.py makes. For each data set and share of changed labels, over the seeds: the share of the labels that
the judge agrees with, how many are accused, what share of these is said to be wrong and is (the labels of the data themselves count as right), and
the changed labels that are in the tenth that looks the most wrong. It takes four minutes on one core.
"""

import argparse
from pathlib import Path

import numpy as np

from vitral.data.copies import exact_copies, families, near_copies
from vitral.data.images import ArrayImages
from vitral.data.listers import list_data
from vitral.data.options import DataOptions
from vitral.guidance.doctor.reading import look
from vitral.guidance.doctor.suspects import described, judge

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)
SETS = (
    ("digits", 200),
    ("digits", None),
    ("elpv", 600),
    ("elpv", None),
    ("fashion-mnist", 500),
    ("fashion-mnist", 5000),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cutouts", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print("| data | labels changed | agrees | accused | said wrong | are wrong | of the changed, in the first tenth |")
    print("|---|---|---|---|---|---|---|")
    for name, count in ((str(args.cutouts), None), *SETS):
        x, right, family = seen(name, count)
        for share in SHARES:
            rows = [outcome(x, right, family, share, seed) for seed in range(args.seeds if share else 1)]
            agrees, accused, said, are, first = (mean([row[i] for row in rows]) for i in range(5))
            cells = [f"{share:.0%}", f"{agrees:.0%}", f"{accused:.0f}", percent(said), percent(are), percent(first)]
            print(f"| {Path(name).name}, {len(right):,} | {' | '.join(cells)} |", flush=True)


def seen(name: str, count: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the judge reads of so many images, [n, D], their classes and which are copies."""
    listing = list_data(name, DataOptions())
    images, rows = listing.images, np.arange(len(listing.images.names))
    if count is not None:
        rows = np.random.default_rng(1).permutation(len(rows))[:count]
        pixels = np.stack([images.read(int(i), None, None).numpy()[0] for i in rows])
        images = ArrayImages(pixels, [images.names[i] for i in rows])
    looks, _ = look(images, None)
    copies = [*exact_copies(looks.digests), *near_copies(looks.small, looks.digests, looks.least_sides, None)]
    return described(looks), listing.targets.values[rows][looks.rows], families(len(looks), copies)


def outcome(x: np.ndarray, right: np.ndarray, family: np.ndarray, share: float, seed: int) -> tuple[float, ...]:
    rng, n = np.random.default_rng(100 + seed), len(right)
    wrong = np.zeros(n, bool)
    wrong[rng.permutation(n)[: round(share * n)]] = True
    classes = int(right.max()) + 1
    labels = np.where(wrong, (right + rng.integers(1, classes, n)) % classes, right)
    judged = judge(x, labels, family)
    accused = judged.doubted
    tenth = np.argsort(-judged.suspicion, kind="stable")[: round(0.1 * n)]
    nothing = float("nan")
    said = judged.strength.precision if accused.any() else nothing
    are = float(wrong[accused].mean()) if accused.any() else nothing
    return (
        judged.agreement,
        float(accused.sum()),
        said,
        are,
        float(wrong[tenth].sum() / wrong.sum()) if share else nothing,
    )


def mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.0%}"


if __name__ == "__main__":
    main()
