"""How the family learns from few images: Fashion-MNIST at 1, 10 and 100 % of its training images, the same minutes on one core for all.

    python benchmarks/family.py                  # 9 ways x 3 fractions x 3 seeds; two runs at a time, one core each
    python benchmarks/family.py --show           # the table of what has been run

Each result is a line in benchmarks/family.jsonl, and what is there is not run again. Everything goes through the command line; `--commands`
prints the commands. Minutes are of training on one core: a self-supervised start spends a part of its own minutes without labels, and the
teacher's are not counted, as they are the ResNet's row. Scores are test top-1, scored once a run; nothing was chosen on them.
"""

import argparse
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runs import Results, summary, vitral

DATA = "fashion-mnist"
RESULTS = Results(Path(__file__).parent / "family.jsonl", "way", "fraction", "seed")
FRACTIONS = {0.01: 0.5, 0.1: 1.0, 1.0: 2.0}  # of the training images: minutes
PRETRAINED = 0.5  # of the minutes, where there is a self-supervised start

COMMON = "--val-fraction 0.05 --mean 0.5 --std 0.5 --hflip 0.5 --batch-size 128 --validate-every 1000000 --keep last --workers 0"
SHIFTS = "--crop padded --padding 0.04"
ENCODER = "--image-size 28 28 --patch-size 4 --dim 96 --depth 5 --num-heads 3 --mlp-ratio 2"
VIT = f"--model vit_tiny_patch16_224 {ENCODER}"
MUON = "--optimizer muon --lr 5e-3"
ADAMW = "--optimizer adamw --lr 1e-3"
STUDENT = f"--model deit_tiny_distilled_patch16_224 {ENCODER} {MUON} {SHIFTS}"
WAYS = {
    "ViT, plain recipe": f"{VIT} {ADAMW} {SHIFTS} --smoothing 0",
    "ViT, small-data recipe": "--model vit_tiny_patch16_224 --image-size 28 28 --patch-size 8 --stem 32 32 64 64 128 128 --dim 128 --depth 4 "
    f"--num-heads 4 --mlp-ratio 2 --position sincos2d --pooling mean --class-token False {MUON} {SHIFTS}",
    "DeiT, alone": STUDENT,
    "DeiT, distilled from the ResNet": f"{STUDENT} --teacher {{teacher}}",
    "ViT, masked autoencoder first": f"--init {{pretrained}} --pooling mean {MUON} {SHIFTS}",
    "ResNet": "--model resnet18 --image-size 28 28 --width 32 --depths 2 2 2 1 --optimizer adamw --lr 2e-3 " + SHIFTS,
    "Swin": f"--model swin_tiny_patch4_window7_224 --image-size 28 28 --patch-size 2 --dim 48 --depths 2 2 --num-heads 2 4 --window 7 7 "
    f"{MUON} {SHIFTS}",
    "PVT v2": "--model pvt_v2_b0 --image-size 28 28 --dims 32 64 128 192 --depths 2 2 2 2 --num-heads 1 2 4 6 --mlp-ratios 4 4 4 4 "
    f"--optimizer muon --lr 3e-3 {SHIFTS}",
    "CaiT": f"--model cait_xxs24_224 {ENCODER} {MUON} {SHIFTS}",
}
PRETRAIN = f"--objective mae {VIT} --decoder-dim 64 --decoder-depth 2 --decoder-num-heads 2 {MUON} --crop resized --scale 0.4 1"
TEACHER, FIRST = "ResNet", "ViT, masked autoencoder first"


def run(way: str, fraction: float, seed: int, kept: Path) -> dict:
    """Train one way; `kept` holds the teachers. Its test top-1 and epochs."""
    minutes = FRACTIONS[fraction]
    with tempfile.TemporaryDirectory() as folder:
        out, pretrained = Path(folder) / "run", Path(folder) / "pretrained"
        shared = f"{COMMON} --train-fraction {fraction}"
        if way == FIRST:
            vitral(
                "pretrain",
                DATA,
                f"{shared} {PRETRAIN}",
                minutes=minutes * PRETRAINED,
                seed=seed,
                out=pretrained,
                threads=1,
            )
            minutes *= 1 - PRETRAINED
        options = WAYS[way].format(teacher=kept / f"{fraction}-{seed}", pretrained=pretrained)
        row = vitral("train", DATA, f"{shared} {options}", minutes=minutes, seed=seed, out=out, threads=1)
        if way == TEACHER:
            shutil.copytree(out, kept / f"{fraction}-{seed}", dirs_exist_ok=True)
    return row


def show() -> None:
    rows = RESULTS.rows()
    heads = [f"{fraction:.0%} ({60 * minutes:g} s)" for fraction, minutes in FRACTIONS.items()]
    print(f"| Fashion-MNIST, test top-1 in % | {' | '.join(heads)} |\n|---|{'---|' * len(FRACTIONS)}")
    for way in WAYS:
        cells = [
            summary([row["top1"] for (w, f, _), row in rows.items() if (w, f) == (way, each)]) for each in FRACTIONS
        ]
        print(f"| {way} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fractions", type=float, nargs="+", choices=FRACTIONS, default=list(FRACTIONS))
    parser.add_argument("--kept", type=Path, default=Path("runs/family"), help="folder for the teachers")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    parser.add_argument("--commands", action="store_true", help="print the command of each way and run nothing")
    given = parser.parse_args()
    if given.commands:
        print(f"vitral pretrain fashion-mnist {COMMON} {PRETRAIN}   # {FIRST}, before it")
        for way, options in WAYS.items():
            print(f"vitral train fashion-mnist {COMMON} {options}   # {way}")
        return

    def work(job: tuple[str, float, int]) -> None:
        way, fraction, seed = job
        row = run(way, fraction, seed, given.kept)
        RESULTS.add({"way": way, "fraction": fraction, "seed": seed, "core_minutes": FRACTIONS[fraction], **row})

    if not given.show:
        for seed in given.seeds:
            jobs = [(way, fraction, seed) for fraction in given.fractions for way in WAYS]
            jobs = [job for job in jobs if job not in RESULTS.rows()]
            teachers = [job for job in jobs if job[0] == TEACHER]
            with ThreadPoolExecutor(given.jobs) as pool:
                list(pool.map(work, teachers))
                list(pool.map(work, [job for job in jobs if job not in teachers]))
    show()


if __name__ == "__main__":
    main()
