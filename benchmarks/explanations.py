"""How true the maps of every method are: deletion, insertion, place, sanity and time, beside random maps and the picture's centre.

    python benchmarks/explanations.py --epochs 20 --images 100                          # objects with known masks
    python benchmarks/explanations.py --run RUN --data fashion-mnist --images 100       # any run and data, without masks
    python benchmarks/explanations.py --show                                            # the tables of what has been run

Objects: a small ViT is trained by the command line, on files, to tell the shapes of objects.py; then maps of pictures that it has not seen are
scored, also against the objects' masks. Scores are defined in vitral.explain.faithfulness, .localise and .sanity, and are means over the images ±
one standard error; the class explained is the one predicted. ↓ lower is better, ↑ higher; sanity near 0 is sound. Each method's scores are a line
in benchmarks/explanations.jsonl.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

import objects
from runs import Results, vitral
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.explain.compare import Case, Row, cases, comparable, compare, markdown, to_json, with_error
from vitral.explain.removal import IN_WORDS
from vitral.predict import Predictor, load

RESULTS = Results(Path(__file__).parent / "explanations.jsonl", "subject", "removal", "method")
MODEL = (
    f"--model vit_tiny_patch16_224 --image-size {objects.SIDE} {objects.SIDE} --patch-size 8 --stem 24 24 48 48 96 96 --dim 96 --depth 4 "
    "--num-heads 3 --crop-fraction 1 --crop padded --hflip 0.5 --optimizer muon --lr 5e-3 --weight-decay 0.05 --batch-size 64"
)  # convolutions before the tokens learn shapes in minutes, https://arxiv.org/abs/2106.14881
TRAIN, FIRST_TEST = 600, 10**6  # pictures a class; the seed from which on pictures are for testing
LARGE = 480  # side of the pictures for people


def objects_run(folder: Path, epochs: float, seed: int, count: int) -> None:
    """A ViT trained on `count` pictures of each class, as a run in folder/run, and new pictures to look at in folder/pictures."""
    objects.write(folder / "data" / "train", count, 0)
    objects.write(folder / "data" / "test", 25, 2 * FIRST_TEST)
    (folder / "pictures").mkdir()
    for i, label in enumerate(objects.LABELS):
        Image.fromarray(objects.draw(label, FIRST_TEST + i, LARGE)[0]).save(folder / "pictures" / f"{label}.png")
    vitral("train", str(folder / "data"), f"{MODEL} --epochs {epochs:g}", seed=seed, out=folder / "run")


def object_cases(predictor: Predictor, count: int) -> list[Case]:
    """New pictures of the classes in turn, with their masks."""
    steps = predictor.card.preprocess
    assert (steps.height, steps.width, steps.crop_fraction) == (objects.SIDE, objects.SIDE, 1), (
        "the view is the picture"
    )
    drawn = []
    for i in range(count):
        label = objects.LABELS[i % len(objects.LABELS)]
        picture, mask = objects.draw(label, FIRST_TEST + i)
        drawn.append(Case(f"{label} {i}", torch.from_numpy(picture.copy()).permute(2, 0, 1), mask))
    return drawn


def report(subject: str, about: dict[str, object], removal: str, rows: Iterable[Row]) -> None:
    """Print the table and keep each method's means."""
    rows = list(rows)
    print(f"\n{subject}, {IN_WORDS[removal]}: {json.dumps(about)}\n\n{markdown(rows)}\n", flush=True)
    for method, scores in to_json(rows).items():
        RESULTS.add({"subject": subject, "removal": removal, "method": method, **about, "scores": scores})


def show() -> None:
    """What has been run: the latest of each subject and filling."""
    for (subject, removal, method), row in RESULTS.rows().items():
        scores = "  ".join(f"{name} {with_error(**s)}" for name, s in row["scores"].items())
        print(f"{subject}, {removal}: {method:20}  {scores}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=20, help="of training on the objects")
    parser.add_argument("--pictures", type=int, default=TRAIN, help="of each class to train on")
    parser.add_argument("--images", type=int, default=100, help="to explain")
    parser.add_argument(
        "--sane", type=int, default=5, help="of them, for sanity and sensitivity, which are the slowest"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--removal", nargs="+", choices=["mean", "blur", "drop"], default=["mean"])
    parser.add_argument("--methods", nargs="+", help="default: all that are defined for the model")
    parser.add_argument("--run", type=Path, help="a run to explain instead; needs --data")
    parser.add_argument("--data", help="folder, table or built-in name; its test images are explained")
    parser.add_argument(
        "--keep", type=Path, help="folder to keep the objects and the run in; used again if it is there"
    )
    parser.add_argument("--show", action="store_true", help="print what has been run and run nothing")
    given = parser.parse_args()
    if given.show:
        show()
        return
    if (given.run is None) != (given.data is None):
        parser.error("--run and --data go together")
    with tempfile.TemporaryDirectory() as temporary:
        about: dict[str, object] = {"images": given.images, "sane": given.sane}
        if given.run:
            subject, predictor = f"{given.run.name} on {given.data}", load(given.run)
            images = cases(predictor, open_data(given.data, DataOptions(), training=False).splits["test"], given.images)
        else:
            folder = given.keep or Path(temporary)
            if not (folder / "run").exists():
                objects_run(folder, given.epochs, given.seed, given.pictures)
            about["top1"] = json.loads((folder / "run" / "scores.json").read_text())["top1"]
            subject, predictor = f"objects, {given.epochs:g} epochs", load(folder / "run")
            images = object_cases(predictor, given.images)
        methods = given.methods or comparable(predictor)
        for removal in given.removal:
            rows = compare(
                predictor, images, methods, removal=removal, sane=given.sane, seed=given.seed,
                progress=lambda n, total: print(f"\r{n} of {total}", end="", file=sys.stderr, flush=True),
            )  # fmt: skip
            report(subject, about, removal, rows)


if __name__ == "__main__":
    main()
