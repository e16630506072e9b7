"""A folder of photographs to a CSV of labels, whole processes in turns: `vitral predict` in each engine beside Transformers' pipeline.

    python benchmarks/folder.py [--images 500] [--rounds 3] [--engines onnx torch openvino]

JPEGs of 500x375, cut from scikit-learn's two photographs, and a ViT-S with random weights, the same for both. All must give the same labels. Then
what is between file and engine: the rate of `predict_stream` beside the engine's. Then one photograph, one process: seconds from the command to the
answer.
"""

import argparse
import csv
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

SIZE = (500, 375)
PEER = """
import csv, sys
from pathlib import Path
import transformers
transformers.logging.set_verbosity_error()
pipe = transformers.pipeline("image-classification", model=sys.argv[1], top_k=1)
paths = sorted(str(p) for p in Path(sys.argv[2]).iterdir())
out = csv.writer(sys.stdout)
for path, found in zip(paths, pipe((path for path in paths), batch_size=int(sys.argv[3]))):
    out.writerow([path, found[0]["label"], found[0]["score"]])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["onnx", "torch"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photographs(work / "photographs", given.images)
        files = models(work, given.engines)
        ways = {f"vitral, {name}": [*VITRAL, str(file)] for name, file in files.items()}
        whole = {name: [*words, str(work / "photographs"), "--format", "csv"] for name, words in ways.items()}
        for size in (1, 8):
            whole[f"Transformers, batch {size}"] = [sys.executable, "-c", PEER, str(work / "hf"), str(work / "photographs"), str(size)]  # fmt: skip
        compare(f"{given.images} photographs", whole, given.rounds, given.images)
        for name, file in files.items():
            between(name, file, sorted(map(str, (work / "photographs").iterdir()))[:96], given.rounds)
        one = next((work / "photographs").iterdir())
        compare("one photograph", {name: [*words, str(one), "--format", "csv"] for name, words in ways.items()}, 3 * given.rounds, 1)  # fmt: skip


VITRAL = [sys.executable, "-m", "vitral", "predict"]


def photographs(folder: Path, count: int) -> None:
    folder.mkdir()
    sources = [Image.fromarray(np.asarray(each)) for each in load_sample_images().images]  # 640x427
    for i in range(count):
        left, top = i * 7 % 140, i * 3 % 52
        sources[i % 2].crop((left, top, left + SIZE[0], top + SIZE[1])).save(folder / f"{i:04}.jpg", quality=90)


def models(work: Path, engines: list[str]) -> dict[str, Path]:
    """The same weights for each engine, and for Transformers in the folder hf."""
    import torch

    import vitral
    from vitral.checkpoints.bundle import save_model
    from vitral.checkpoints.card import ModelCard
    from vitral.data.preprocess import Preprocess
    from vitral.deploy.export.formats import FORMATS, export
    from vitral.predict import Predictor

    torch.manual_seed(0)
    model = vitral.create_model("vit_small_patch16_224", num_classes=10).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5)
    steps = Preprocess(224, 224, 3, (0.5,) * 3, (0.5,) * 3, "squash", interpolation="bilinear")
    labels = [f"class {k}" for k in range(10)]
    predictor = Predictor(model, ModelCard("vit_small_patch16_224", model.config.arguments(), labels, steps))
    save_model(work / "model.safetensors", predictor.model, predictor.card)
    said = [*VITRAL[:3], "convert", str(work / "model.safetensors"), str(work / "hf"), "--to", "hf"]
    subprocess.run(said, check=True, capture_output=True)
    files = {}
    for name in engines:
        files[name] = work / ("model.safetensors" if name == "torch" else f"{name}{FORMATS[name].suffix}")
        if name != "torch":
            export(predictor, files[name])
    return files


def between(name: str, file: Path, paths: list[str], rounds: int) -> None:
    """From file to answer in this process, beside the engine alone on the same images, decoded already."""
    from vitral.predict import load
    from vitral.stream import predict_stream

    predictor, size = load(file), 16
    views = [predictor.card.preprocess.view(predictor.read(path)) for path in paths]
    batches = [np.stack(views[k : k + size]) for k in range(0, len(views), size)]
    ratios = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        for batch in batches:
            predictor.engine(batch)
        alone = time.perf_counter() - began
        for _ in predict_stream(predictor, zip(paths, paths, strict=True), batch_size=size):
            pass
        ratios.append(alone / (time.perf_counter() - began - alone))
    print(
        f"vitral, {name}: from files at {median(ratios[1:]):.1%} of the engine's rate alone ({len(paths) / alone:.1f} images/s)"
    )


def compare(title: str, ways: dict[str, list[str]], rounds: int, images: int) -> None:
    took: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, words in ways.items():
            began = time.perf_counter()
            done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            took[name].append(time.perf_counter() - began)
            assert done.returncode == 0, done.stderr
            rows = [row for row in csv.reader(io.StringIO(done.stdout)) if row[0] != "image"]
            said[name] = [row[1] for row in rows]
    first = next(iter(ways))
    print(title)
    for name, seconds in took.items():
        same = sum(a == b for a, b in zip(said[first], said[name], strict=True))
        ratio = median(own / base for own, base in zip(seconds, took[first], strict=True))
        print(
            f"  {name:24} {median(seconds):7.2f} s {images / median(seconds):7.1f} images/s, {ratio:.2f} times the first's seconds; "
            f"{same} of {images} labels the same"
        )


if __name__ == "__main__":
    main()
