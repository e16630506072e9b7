"""Does learning from one's own images without labels first help? elpv, no outside data, the same minutes on one core, paired by seed.

    python benchmarks/pretraining.py --minutes 8 --seeds 0 1 2       # 2 contenders x 3 seeds x 8 minutes
    python benchmarks/pretraining.py --show                          # the table of what has been run

Both train recipes/elpv.toml's kind of ViT, smaller for the time (128 px, width 128, 6 layers). One starts from scratch; the other spends half of its
minutes on masked autoencoding of the same training images and then goes on with the same settings. Each result is a line in
benchmarks/pretraining.jsonl, and what is there is not run again. The test split is scored once a run; nothing was chosen on it.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from runs import Results, summary, vitral

RESULTS = Results(Path(__file__).parent / "pretraining.jsonl", "contender", "minutes", "seed")
SCRATCH, FIRST = "from scratch", "masked autoencoder first"
PRETRAINED = 0.5  # of the minutes
COMMON = "--crop-fraction 1 --hflip 0.5 --vflip 0.5 --optimizer muon --workers 0 --validate-every 100000"
MODEL = (
    "--model vit_tiny_patch16_224 --image-size 128 128 --patch-size 16 --dim 128 --depth 6 --num-heads 4 --mlp-ratio 2"
)
TRAIN = f"{COMMON} --crop padded --brightness 0.2 --batch-size 32 --keep last --pooling mean"
MAE = (
    f"--objective mae {COMMON} {MODEL} --decoder-dim 96 --decoder-depth 2 --decoder-num-heads 4 --crop resized --scale 0.4 1 "
    "--batch-size 64 --lr 3e-3"
)


def run(contender: str, minutes: float, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out, pretrained = Path(folder) / "run", Path(folder) / "pretrained"
        if contender == SCRATCH:
            options = f"{TRAIN} {MODEL} --class-token False --lr 3e-3"
            return vitral("train", "elpv", options, minutes=minutes, seed=seed, out=out, threads=1)
        first = vitral("pretrain", "elpv", MAE, minutes=minutes * PRETRAINED, seed=seed, out=pretrained, threads=1)
        options = f"{TRAIN} --init {pretrained} --class-token True --lr 2e-3"
        rest = minutes * (1 - PRETRAINED)
        second = vitral("train", "elpv", options, minutes=rest, seed=seed, out=out, threads=1)
        return {**second, "pretraining_epochs": first["epochs"]}


def show() -> None:
    rows = RESULTS.rows()
    for minutes in sorted({m for _, m, _ in rows}):
        print(f"elpv, test top-1 in % after {minutes:g} minutes on one core")
        for contender in (SCRATCH, FIRST):
            print(
                f"  {contender:28} {summary([row['top1'] for (c, m, _), row in rows.items() if (c, m) == (contender, minutes)])}"
            )
        seeds = [seed for c, m, seed in rows if (c, m) == (FIRST, minutes) and (SCRATCH, m, seed) in rows]
        gains = [100 * (rows[FIRST, minutes, seed]["top1"] - rows[SCRATCH, minutes, seed]["top1"]) for seed in seeds]
        if gains:
            print(f"  gain, paired                 {mean(gains):+.2f} ({', '.join(f'{gain:+.2f}' for gain in gains)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    for seed in [] if given.show else given.seeds:
        for contender in (SCRATCH, FIRST):
            if (contender, given.minutes, seed) not in RESULTS.rows():
                RESULTS.add(
                    {
                        "contender": contender,
                        "minutes": given.minutes,
                        "seed": seed,
                        **run(contender, given.minutes, seed),
                    }
                )
    show()


if __name__ == "__main__":
    main()
