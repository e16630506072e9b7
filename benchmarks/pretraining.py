"""Does learning from one's own images without labels first help? elpv, no outside data, the same work, paired by seed.

    python benchmarks/pretraining.py --seeds 0 1 2       # 2 contenders x 3 seeds x about 8 minutes on one core
    python benchmarks/pretraining.py --show              # the table of what has been run

Both train recipes/elpv.toml's kind of ViT, smaller for the time (128 px, width 128, 6 layers). One starts from scratch, for 48 epochs; the other
spends half of that time on masked autoencoding of the same training images (28 epochs, as most patches are hidden) and then goes on with the same
settings for 24. Budgets are in epochs, so that a busy machine changes nothing. Each result is a line in benchmarks/pretraining.jsonl, and what is
there is not run again. The test split is scored once a run; nothing was chosen on it.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from runs import Results, summary, vitral

RESULTS = Results(Path(__file__).parent / "pretraining.jsonl", "contender", "seed")
SCRATCH, FIRST = "from scratch", "masked autoencoder first"
EPOCHS, MASKED, TUNED = 48, 28, 24
COMMON = "--crop-fraction 1 --hflip 0.5 --vflip 0.5 --optimizer muon --workers 0 --validate-every 100000"
MODEL = (
    "--model vit_tiny_patch16_224 --image-size 128 128 --patch-size 16 --dim 128 --depth 6 --num-heads 4 --mlp-ratio 2"
)
TRAIN = f"{COMMON} --crop padded --brightness 0.2 --batch-size 32 --keep last --pooling mean"
MAE = (
    f"--objective mae {COMMON} {MODEL} --decoder-dim 96 --decoder-depth 2 --decoder-num-heads 4 --crop resized --scale 0.4 1 "
    "--batch-size 64 --lr 3e-3"
)


def run(contender: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        out, pretrained = Path(folder) / "run", Path(folder) / "pretrained"
        if contender == SCRATCH:
            return vitral(
                "train", "elpv", f"{TRAIN} {MODEL} --class-token False --lr 3e-3 --epochs {EPOCHS}", seed=seed, out=out
            )
        vitral("pretrain", "elpv", f"{MAE} --epochs {MASKED}", seed=seed, out=pretrained)
        options = f"{TRAIN} --init {pretrained} --class-token True --lr 2e-3 --epochs {TUNED}"
        return vitral("train", "elpv", options, seed=seed, out=out)


def show() -> None:
    rows = RESULTS.rows()
    print("elpv, test top-1 in %")
    for contender in (SCRATCH, FIRST):
        print(f"  {contender:28} {summary([row['top1'] for (c, _), row in rows.items() if c == contender])}")
    seeds = [seed for c, seed in rows if c == FIRST and (SCRATCH, seed) in rows]
    gains = [100 * (rows[FIRST, seed]["top1"] - rows[SCRATCH, seed]["top1"]) for seed in seeds]
    if gains:
        print(f"  gain, paired                 {mean(gains):+.2f} ({', '.join(f'{gain:+.2f}' for gain in gains)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--contenders", nargs="+", choices=[SCRATCH, FIRST], default=[SCRATCH, FIRST])
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    for seed in [] if given.show else given.seeds:
        for contender in given.contenders:
            if (contender, seed) not in RESULTS.rows():
                RESULTS.add({"contender": contender, "seed": seed, **run(contender, seed)})
    show()


if __name__ == "__main__":
    main()
