"""Is what `vitral plan` picks at least as good as vitral's plain defaults in the same time? Test top-1, paired by seed, on three data sets.

    python benchmarks/plan.py --minutes 5 --seeds 0 1 2      # 3 data sets x 2 contenders x 3 seeds x 5 minutes
    python benchmarks/plan.py --show                         # the table of what has been run

The plain defaults are what training resolves to when anything is said, here the default optimiser, so that no plan is made. The plan is made anew
for each run, with its trials, whose seconds are not counted. Each result is a line in benchmarks/plan.jsonl, and what is there is not run again.
The test split is scored once a run; no rule of the plan was chosen on it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from runs import Results, summary, vitral

RESULTS = Results(Path(__file__).parent / "plan.jsonl", "data", "contender", "minutes", "seed")
DATA = {"digits": "", "fashion-mnist": "--train-fraction 0.1", "elpv": ""}
PLAIN, PLANNED = "plain defaults", "planned"


def run(data: str, contender: str, minutes: float, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out, recipe = Path(folder) / "run", Path(folder) / "plan.toml"
        if contender == PLAIN:
            return vitral("train", data, f"{DATA[data]} --optimizer muon", minutes=minutes, seed=seed, out=out)
        words = ["plan", data, *DATA[data].split(), "--hours", f"{minutes / 60:g}", "--out", str(recipe)]
        subprocess.run([sys.executable, "-m", "vitral", *words], check=True, stderr=subprocess.DEVNULL)
        return vitral("train", data, f"--recipe {recipe}", minutes=minutes, seed=seed, out=out)


def show() -> None:
    rows = RESULTS.rows()
    print("| data | minutes | plain defaults | planned | gain, paired |\n|---|---|---|---|---|")
    for data, minutes in sorted({(data, minutes) for data, _, minutes, _ in rows}):
        found = {
            contender: {s: row["top1"] for (d, c, m, s), row in rows.items() if (d, c, m) == (data, contender, minutes)}
            for contender in (PLAIN, PLANNED)
        }
        both = sorted(found[PLAIN].keys() & found[PLANNED].keys())
        gains = [100 * (found[PLANNED][seed] - found[PLAIN][seed]) for seed in both]
        paired = f"{mean(gains):+.2f} ({', '.join(f'{gain:+.2f}' for gain in gains)})" if gains else ""
        cells = " | ".join(summary(list(found[contender].values())) for contender in (PLAIN, PLANNED))
        print(f"| {data} {DATA[data]} | {minutes:g} | {cells} | {paired} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    for seed in [] if given.show else given.seeds:
        for data in given.data:
            for contender in (PLAIN, PLANNED):
                if (data, contender, given.minutes, seed) not in RESULTS.rows():
                    row = run(data, contender, given.minutes, seed)
                    RESULTS.add({"data": data, "contender": contender, "minutes": given.minutes, "seed": seed, **row})
    show()


if __name__ == "__main__":
    main()
