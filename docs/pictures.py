"""Make the pictures of README.md and docs/tour.md from a finished Fashion-MNIST run: python docs/pictures.py runs/fashion-mnist"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vitral.data.bands import to_rgb
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.drawing.figure import save_picture
from vitral.drawing.letters import write
from vitral.explain.explain import attention_maps, explain
from vitral.predict import load

OUT = Path(__file__).parent / "pictures"
SIDE, GAP, INK = 224, 28, (28, 30, 38)
LETTERS = 17


def enlarged(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def in_patches(pixels: np.ndarray, grid: tuple[int, int]) -> Image.Image:
    """The picture, its patches drawn apart."""
    h, w = grid
    space = 3
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    picture = enlarged(pixels)
    for i in range(h):
        for j in range(w):
            box = [round(k) for k in (j * SIDE / w, i * SIDE / h, (j + 1) * SIDE / w, (i + 1) * SIDE / h)]
            canvas.paste(
                picture.crop(tuple(box)).resize((box[2] - box[0] - space, box[3] - box[1] - space)), (box[0], box[1])
            )
    return canvas


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fashion-mnist")
    if not (run / "model.safetensors").exists():
        sys.exit(
            f"{run}: no run there; first vitral train fashion-mnist --recipe recipes/fashion-mnist.toml --out {run}"
        )
    predictor = load(run)
    data = open_data("fashion-mnist", DataOptions(val_fraction=0))
    split = data.splits["test"]
    OUT.mkdir(exist_ok=True)
    rows = [
        next(i for i in range(len(split)) if split.targets.values[i] == k) for k in (9, 0, 7)
    ]  # a boot, a T-shirt, a sneaker
    strip = Image.new("RGB", (4 * SIDE + 5 * GAP, len(rows) * (SIDE + 44) + GAP), "white")
    draw = ImageDraw.Draw(strip)
    for row, i in enumerate(rows):
        pixels = split.read(i, predictor.card.preprocess.channels)
        explanation = explain(predictor, pixels, layer="mean")
        h, w = explanation.grid.shape
        picture = to_rgb(pixels)
        panels = [
            (enlarged(picture), "the image"),
            (in_patches(picture, (h, w)), f"{h} x {w} patches"),
            (explanation.overlay(scale=SIDE // 28), "where attention goes"),
        ]
        y = GAP + row * (SIDE + 44)
        for column, (panel, caption) in enumerate(panels):
            x = GAP + column * (SIDE + GAP)
            strip.paste(panel, (x, y))
            write(draw, (x + SIDE / 2, y + SIDE + 8), caption, INK, LETTERS, "ma")
        x = GAP + 3 * (SIDE + GAP)
        best = predictor.predict(pixels, top_k=5).top
        for rank, (label, probability) in enumerate(best):
            top = y + 12 + rank * 42
            draw.rectangle(
                (x, top + 22, x + SIDE * probability, top + 32), fill=(60, 90, 220) if rank == 0 else (190, 196, 210)
            )
            write(draw, (x, top), f"{label}  {probability:.1%}", INK, LETTERS)
    save_picture(strip, OUT / "tour.png")
    pixels = split.read(rows[0], predictor.card.preprocess.channels)
    attention = attention_maps(predictor, pixels)
    save_picture(
        attention.figure(f"{attention.label} {attention.probability:.1%}\neach layer and head"), OUT / "heads.png"
    )


if __name__ == "__main__":
    main()
