"""Every published recipe trains two steps on generated photographs, through the same doors as a person's run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published import PUBLISHED

from vitral.objectives.options import TokenizerOptions
from vitral.predict import load
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.start import start
from vitral.training.toml import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
STEPS, SIDE = 2, 64

# Fewer layers: what is left to one that has only the shape of its stages.
SHALLOW = {
    "swin-tiny": {"depths": (2, 2, 2, 2)},
    "pvt-v2-b2": {"depths": (1, 1, 1, 1)},
    "resnet50": {"depths": (1, 1, 1, 1)},
}

# What a recipe's command names beside the data: the run of another recipe, from whose weights, answers or words it learns.
INITIAL = {
    "vit-finetune": "vit-b16-in1k",
    "vit-finetune-adamw": "deit3-small",
    "deit3-base-224": "deit3-base",
    "beit-b16-finetune": "beit-b16-pretrain",
    "mae-b16-finetune": "mae-b16-pretrain",
    "mae-b16-linear": "mae-b16-pretrain",
}
TEACHERS = {"deit-small-distilled": "resnet50"}
TOKENIZERS = {"beit-b16-pretrain": "tokenizer"}
NAMES = sorted(PUBLISHED)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """train/ and val/ with folders of three classes: discs, bars and noise, each in a colour of its own, as JPEG files of two shapes."""
    root = tmp_path_factory.mktemp("data") / "photographs"
    for split, count in (("train", 6), ("val", 2)):
        for kind, colour in enumerate(((230, 40, 40), (40, 200, 60), (50, 60, 220))):
            folder = root / split / f"class{kind}"
            folder.mkdir(parents=True)
            for i in range(count):
                rng = np.random.default_rng([kind, i, count])
                h, w = (80, 100) if i % 2 else (100, 80)
                y, x = np.mgrid[:h, :w]
                shape = ((y - 40) ** 2 + (x - 40) ** 2 < 900, y % 20 < 9, rng.random((h, w)) < 0.5)[kind]
                pixels = np.where(shape[..., None], colour, rng.integers(90, 130, (h, w, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def dry_run(photographs, tmp_path_factory):
    """name -> the folder of a run of that recipe, made when it is first asked for, and what it starts from before it."""
    runs: dict[str, Path] = {}
    place = tmp_path_factory.mktemp("runs")

    def make(name: str) -> Path:
        if name not in runs:
            recipe = shortened(name)
            transfer, objective = recipe.transfer, recipe.objective
            if name in INITIAL:
                transfer = replace(transfer, init=str(make(INITIAL[name])))
            if name in TEACHERS:
                objective = replace(objective, teacher=str(make(TEACHERS[name])))
            if name in TOKENIZERS:
                objective = replace(objective, tokenizer=str(make(TOKENIZERS[name])))
            run = start(
                str(photographs), replace(recipe, transfer=transfer, objective=objective), place / name, Display()
            )
            assert run.train()
            runs[name] = place / name
        return runs[name]

    return make


def shortened(name: str) -> Recipe:
    """The recipe for two steps of four small images and a model of two layers, no wider than a tiny one; nothing else is changed."""
    if name == "deit3-small":  # what others trained with labels: the fine-tuned model, on smaller images
        recipe = shortened("vit-finetune-adamw")
        return replace(recipe, model=replace(recipe.model, image_size=(32, 32)), train=replace(recipe.train, seed=0))
    if name == "tokenizer":
        recipe = shortened("beit-b16-pretrain")
        return replace(recipe, objective=TokenizerOptions())
    recipe = read_recipe(RECIPES / f"{name}.toml")
    side = 32 if name == "small-data" else SIDE
    narrow = {"dim": 192, "num_heads": 3} if "_base_" in recipe.model.name else {}
    model = replace(recipe.model, image_size=(side, side), **SHALLOW.get(name, {"depth": 2} | narrow))
    train = replace(
        recipe.train, steps=STEPS, epochs=None, batch_size=4, accumulation=1, workers=0, precision="fp32", device="cpu",
        seed=int(name in INITIAL),  # or they would begin alike without the source's weights
    )  # fmt: skip
    return replace(recipe, model=model, train=train)


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_of_every_recipe(name, dry_run):
    folder, asked = dry_run(name), shortened(name)
    used = read_recipe(folder / "recipe.toml")
    assert used.augment == asked.augment
    rate = asked.optim.lr * (4 / asked.optim.lr_per if asked.optim.lr_per else 1)
    assert used.optim.lr == pytest.approx(rate)
    assert replace(used.optim, lr=None) == replace(asked.optim, lr=None, lr_per=None)

    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [event for event in events if event["event"] == "train"]
    assert trained[-1]["step"] == STEPS
    assert np.isfinite([trained[-1][key] for key in ("loss", "grad_norm", "lr")]).all()
    assert trained[-1]["grad_norm"] > 0

    predictor = load(folder)
    assert all(torch.isfinite(p).all() for p in predictor.model.parameters())
    assert predictor.model.image_size == asked.model.get("image_size")
    if asked.objective.labelled:
        assert json.loads((folder / "scores.json").read_text())["split"] == ("val" if name != "small-data" else "test")


@pytest.mark.parametrize("name", sorted(INITIAL))
def test_fine_tuning_starts_from_the_weights_that_it_names(name, dry_run):
    before, after = (load(dry_run(run)).model.state_dict()["patch_embed.proj.weight"] for run in (INITIAL[name], name))
    assert (after - before).norm() < 0.05 * before.norm()


@pytest.mark.parametrize("name", ["augreg-s16-in1k", "augreg-ti16-in1k"])
def test_heads_of_yes_or_no_start_at_no(name, dry_run):
    """A thousand classes: a thousandth is yes. Two steps of a rate below 1e-6 leave the biases where they began."""
    assert load(dry_run(name)).model.head.bias.tolist() == pytest.approx([-6.9] * 3, abs=1e-3)


def test_the_linear_probe_leaves_the_encoder_as_it_was(dry_run):
    before, after = (load(dry_run(name)).model.state_dict() for name in ("mae-b16-pretrain", "mae-b16-linear"))
    shared = [name for name in after if not name.startswith("head")]
    assert shared
    assert all(torch.equal(before[name], after[name]) for name in shared)
