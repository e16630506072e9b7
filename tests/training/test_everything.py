"""What holds for plain training holds with everything on: accumulation, any worker count, and a run that is killed and resumed."""

import shutil
from dataclasses import replace

import pytest
import torch
from test_resume import same, stopped, train

from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.sources import open_data
from vitral.objectives.options import ClassifyOptions, DinoOptions, MaeOptions
from vitral.training.assemble import assemble, training_batches
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.loop import Loop
from vitral.training.optim import build_optimizers
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions
from vitral.training.shape import preprocess, shape
from vitral.training.state import Progress

SMALL = ModelOptions("vit_tiny_patch16_224", image_size=(20, 20), patch_size=4, dim=32, depth=2, num_heads=2)
ALL = AugmentOptions(
    crop="resized", hflip=0.5, vflip=0.2, policy="randaugment", jitter=0.2, erase=0.3, mixup=0.4, cutmix=1.0, repeats=2
)
CASES = {
    "mixed": Recipe(SMALL, augment=ALL, objective=ClassifyOptions(sampling="balanced", class_weights="balanced")),
    "sigmoid": Recipe(SMALL, augment=ALL, objective=ClassifyOptions(loss="bce", binarise=True)),
    "mae": Recipe(SMALL, objective=MaeOptions(decoder_dim=16, decoder_depth=1, decoder_num_heads=2)),
    "dino": Recipe(SMALL, objective=DinoOptions(prototypes=16, local_crops=2, patch_loss=1.0)),
}


@pytest.fixture(scope="module")
def shapes(shapes_folder):
    return open_data(shapes_folder, DataOptions(val_fraction=0, test_fraction=0))


def made(recipe, data, batch_size, accumulation):
    """The loop of a recipe, assembled as a run assembles it."""
    options = TrainOptions(steps=4, batch_size=batch_size, accumulation=accumulation, workers=0)
    recipe = replace(recipe, optim=OptimOptions("sgd", lr=1e-2, ema=0.9), train=options)
    recipe, _ = resolve(recipe, data, "cpu")
    config = shape(recipe, data)
    steps = preprocess(recipe, data, config)
    torch.manual_seed(0)
    learner, objective = assemble(recipe, data, config, steps)
    average = {n: p.detach().clone() for n, p in learner.named_parameters()}
    return Loop(
        learner, objective, training_batches(recipe, data, steps), build_optimizers(learner, recipe.optim), average,
        Progress(batch_size=batch_size, accumulation=accumulation), recipe, torch.device("cpu"), "fp32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def teacher(shapes_folder, tmp_path_factory):
    """A small trained ResNet."""
    out = tmp_path_factory.mktemp("teachers") / "resnet"
    words = ["--model", "resnet18", "--width", "8", "--depths", "1", "1", "1", "1", "--image-size", "20", "20", "--steps", "10",
             "--optimizer", "adamw", "--batch-size", "16", "--precision", "fp32", "--workers", "0"]  # fmt: skip
    train("train", shapes_folder, "--out", out, *words)
    return out


@pytest.mark.parametrize("name", [*CASES, "distilled", "softly distilled"])
def test_accumulated_gradients_are_the_large_batchs(shapes, teacher, name):
    """Two steps of 8 x 3 and of 24: mixed, masked and taught alike, the gradients agree to 1e-6 and the averages follow."""
    if name in CASES:
        recipe = CASES[name]
    else:
        how = "soft" if "soft" in name else "hard"
        recipe = replace(CASES["mixed"], objective=ClassifyOptions(teacher=str(teacher), distillation=how))
    whole, parts = made(recipe, shapes, 24, 1), made(recipe, shapes, 8, 3)
    for step in range(2):
        gradients = []
        for loop in (whole, parts):
            loop.model.train()
            loop.gradients(loop.batches[step], None)
            gradients.append(
                torch.cat([p.grad.flatten().double() for p in loop.model.parameters() if p.grad is not None])
            )
        assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()
        for loop in (whole, parts):
            for group in (g for o in loop.optimizers for g in o.param_groups):
                group["lr"] = 1e-2
            loop.update()
            loop.progress.step += 1
    for key, value in whole.average.items():
        assert torch.allclose(value, parts.average[key], atol=1e-6), key


@pytest.mark.parametrize("name", CASES)
def test_the_stream_does_not_depend_on_workers(shapes, name):
    batches = made(CASES[name], shapes, 8, 1).batches
    for step, batch in enumerate(batches.stream(3, 7, 2), start=3):
        wanted = batches[step]
        assert all(torch.equal(a, b) for a, b in zip(batch.views, wanted.views, strict=True))
        assert torch.equal(batch.targets, wanted.targets)
        assert torch.equal(batch.keys, wanted.keys)


COMMON = ["--epochs", "2", "--image-size", "20", "20", "--patch-size", "4", "--dim", "32", "--depth", "2", "--num-heads", "2", "--batch-size", "4",
          "--accumulation", "2", "--checkpoint-every", "4", "--precision", "fp32", "--drop-path", "0.1", "--ema", "0.9"]  # fmt: skip
RUNS = {
    "everything": ["train", "--crop", "resized", "--policy", "randaugment", "--jitter", "0.2", "--erase", "0.3", "--mixup", "0.4", "--cutmix", "1",
                   "--repeats", "2", "--sampling", "balanced", "--model", "deit_tiny_distilled_patch16_224", "--optimizer", "lamb", "--lr", "3e-3",
                   "--layer-decay", "0.8", "--gradient-checkpointing", "--progressive", "0.6"],
    "mae": ["pretrain", "--objective", "mae", "--decoder-dim", "16", "--decoder-depth", "1", "--decoder-num-heads", "2"],
    "dino": ["pretrain", "--objective", "dino", "--prototypes", "16", "--local-crops", "2", "--patch-loss", "1", "--optimizer", "muon"],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_with_the_same_bits(shapes_folder, teacher, tmp_path, capsys, name):
    command, *words = RUNS[name]
    own = shutil.copytree(teacher, tmp_path / "teacher")
    words = [*words, *COMMON, *(["--teacher", str(own)] if name == "everything" else [])]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(command, shapes_folder, "--out", whole, *words, "--workers", "0")
    stopped("replace", 10, command, shapes_folder, "--out", killed, *words, "--workers", "2")
    if name == "everything":
        another_teacher_is_refused(own / "model.safetensors", killed, capsys)
    train(command, "--resume", killed, "--workers", "0")
    assert same(whole, killed)


def another_teacher_is_refused(file, run, capsys):
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    train("train", "--resume", run, status=2)
    assert "changed since the run began" in capsys.readouterr().err
    file.write_bytes(before)
