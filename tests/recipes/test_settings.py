"""The recipes are what their sources say, and say so themselves."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published import OWN, PUBLISHED

from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.sources import open_data
from vitral.models.common import ModelConfig
from vitral.models.measure import measure
from vitral.models.sizes import SIZES
from vitral.models.zoo import MODELS, build, model_config
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.options import OptimOptions, TransferOptions, ViewOptions
from vitral.training.toml import merge, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
published = pytest.mark.parametrize("name", sorted(PUBLISHED))


def read(name: str) -> Recipe:
    return read_recipe(RECIPES / f"{name}.toml")


def header(name: str) -> str:
    """The comment that a recipe opens with, as one text without its marks."""
    lines = (RECIPES / f"{name}.toml").read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


def part(name: str, title: str) -> str:
    """What the header says under Cost, Expected, Settings or Differs."""
    found = re.search(
        rf"^{title}: (.*?)(?=^(?:Cost|Expected|Settings|Differs|Compare|To compare): |\Z)", header(name), re.M | re.S
    )
    assert found, f"{name}: no {title}"
    return found[1]


def config_of(name: str) -> ModelConfig:
    """The model that the recipe names, for as many classes as its data have."""
    recipe = read(name).model
    assert recipe.name is not None
    return model_config(recipe.name, num_classes=PUBLISHED[name].classes, **recipe.arguments)


@pytest.fixture(scope="module")
def photographs(shapes_folder):
    """A data set that passes for photographs of 500 x 375 pixels."""
    data = open_data(shapes_folder, DataOptions(channels=3))
    return replace(data, height=375, width=500)


def test_every_recipe_has_a_row():
    assert sorted([*PUBLISHED, *OWN]) == NAMES


@published
def test_the_model_is_the_sources(name):
    source, config = PUBLISHED[name], config_of(name)
    assert {field: getattr(config, field) for field in source.model} == source.model
    if source.parameters is not None:
        with torch.device("meta"):
            model = build(config)
        assert sum(p.numel() for p in model.parameters()) == source.parameters


def test_the_small_vit_is_as_large_as_vit_lite():
    """3.717 million, https://github.com/SHI-Labs/Compact-Transformers/tree/main/examples; our layers have a bias more and a norm less."""
    with torch.device("meta"):
        model = build(config_of("small-data"))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(3.717e6, rel=0.005)


@published
def test_batch_and_budget_are_the_sources(name):
    source, train = PUBLISHED[name], read(name).train
    assert (train.batch_size * train.accumulation, train.epochs, train.steps, train.time) == (
        source.batch,
        source.epochs,
        source.steps,
        None,
    )


@published
def test_the_optimiser_is_the_sources(name, photographs):
    """After scaling with the batch, field by field; fields that the source leaves out are at their defaults."""
    resolved, _ = resolve(read(name), photographs, "cuda")
    wanted = OptimOptions(**PUBLISHED[name].optim)
    assert resolved.optim.lr == pytest.approx(wanted.lr, rel=1e-9)
    assert replace(resolved.optim, lr=wanted.lr) == wanted


@published
def test_images_are_changed_as_in_the_source(name):
    source, recipe = PUBLISHED[name], read(name)
    assert recipe.augment == AugmentOptions(**source.augment)
    assert recipe.view == ViewOptions(**source.view)


@published
def test_what_is_learned_is_the_sources(name):
    source, recipe = PUBLISHED[name], read(name)
    assert recipe.objective == merge(Recipe(), {"objective": source.objective}, name).objective
    assert recipe.transfer == TransferOptions(**source.transfer)


@published
def test_all_training_images_are_used_and_the_last_weights_kept(name):
    """Papers train on all of ImageNet's training images, and report the last weights on its validation images."""
    source, recipe = PUBLISHED[name], read(name)
    if name == "small-data":  # of anything: takes its test images from them
        return
    assert (recipe.data.test_fraction, recipe.data.val_fraction) == (0.0, source.val_fraction)
    assert recipe.train.keep == "last"
    assert recipe.train.score_split == "val" or not recipe.objective.labelled


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_opens_with_its_command(name):
    command = header(name).splitlines()[0].split()
    verb = "train" if read(name).objective.labelled else "pretrain"
    assert command[:2] == ["vitral", verb]
    assert command[command.index("--recipe") + 1] == f"recipes/{name}.toml"
    assert "--out" in command


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_its_cost_and_what_to_expect(name):
    assert re.search(r"\d", part(name, "Cost"))
    expected = part(name, "Expected")
    if name in PUBLISHED:
        assert re.search(r"\d %", expected)
        assert "https://" in expected
        assert part(name, "Settings")


@published
def test_the_cost_is_counted_right(name):
    """Images are epochs x training images or steps x batch; multiply-adds are those of the model at its size."""
    source = PUBLISHED[name]
    cost = part(name, "Cost").replace(",", "")
    images = float(re.search(r"([\d.]+) million images", cost)[1]) * 1e6
    assert images == pytest.approx((source.epochs or 0) * source.images + (source.steps or 0) * source.batch, rel=5e-3)
    if per_image := re.search(r"of ([\d.]+) billion multiply-adds", cost):
        config, known = config_of(name), read(name).model.name
        usual = known in MODELS and MODELS[known].config.image_size == config.image_size
        multiply_adds = SIZES[known][1] if usual else measure(config).multiply_adds
        assert multiply_adds / 1e9 == pytest.approx(float(per_image[1]), rel=0.04)
    else:
        assert read(name).objective.name in ("mae", "beit", "dino")  # of which the model is only a part


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_recipes_lists_it_with_its_command(name):
    page = (RECIPES.parent / "docs" / "recipes.md").read_text()
    row = next((line for line in page.splitlines() if line.startswith("|") and f"../recipes/{name}.toml)" in line), "")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 6, f"{name}: no row of 6 cells in docs/recipes.md"
    assert all(cells)
    if name in PUBLISHED:
        assert "https://" in cells[-1]


def test_the_page_of_recipes_links_to_what_is_there():
    page = RECIPES.parent / "docs" / "recipes.md"
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert all((page.parent / target).exists() for target in targets if not target.startswith("https://"))
