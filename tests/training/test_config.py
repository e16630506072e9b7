"""Recipes: files over defaults, every mistake named with the nearest right thing."""

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.options import AugmentOptions, DataOptions
from vitral.errors import VitralError
from vitral.models.heads.options import QueryOptions
from vitral.models.zoo import MODELS, argument_types
from vitral.objectives.options import OBJECTIVES, BeitOptions, ClassifyOptions, MaeOptions
from vitral.training.config import Recipe, seconds
from vitral.training.options import ModelArguments, ModelOptions, OptimOptions, TrainOptions
from vitral.training.shape import open_config
from vitral.training.toml import FLAGS, merge, read_recipe, to_toml
from vitral.typed import fitted


@given(
    st.builds(
        Recipe,
        data=st.builds(DataOptions, image_column=st.text(), data_dir=st.none() | st.text()),
        augment=st.builds(
            AugmentOptions, scale=st.tuples(st.floats(0.1, 0.5), st.floats(0.5, 1)), quarter_turns=st.booleans()
        ),
        optim=st.builds(
            OptimOptions, lr=st.none() | st.floats(1e-9, 1), warmup_steps=st.none() | st.integers(0, 10**9)
        ),
        train=st.builds(TrainOptions, epochs=st.none() | st.floats(0.1, 1e6)),
    )
)
def test_a_recipe_comes_back_from_its_file(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(to_toml(recipe), newline="")
    assert read_recipe(path) == recipe


def test_mistakes_are_named(tmp_path):
    path = tmp_path / "r.toml"
    for text, what in {
        "[optim]\nlearning_rat = 1": r"r.toml \[optim\]: unknown key 'learning_rat'; the nearest is 'lr'",
        "[optm]\nlr = 1": r"unknown key 'optm'; the nearest is 'optim'",
        "[train]\nbatch_sise = 1": "nearest is 'batch_size'",
        "[train]\nbatch_size = 'big'": "batch_size = 'big' should be a whole number",
        "[train]\nsteps = 1.5": "should be a whole number",
        "[train]\nsteps = true": "should be a whole number",
        "train = 3": "train is a section",
        "[model]\nimage_size = [3]": r"should be \[height, width\], such as \[32, 32\]",
        "[optim]\nlearning_rate = 1": "the nearest is 'lr'",
        "lr = 1": r"lr belongs in \[optim\]",
        "learning_rate = 1": r"lr belongs in \[optim\]",
        "[train]\nheads = 3": r"num_heads belongs in \[model\]",
        "[model]\ndepht = 3": r"r.toml \[model\]: unknown key 'depht'; the nearest is 'depth'",
        "[model]\nname = 'resnet18'\ndim = 'wide'": r"r.toml \[model\]: dim = 'wide' should be a whole number",
        "[model]\nnorm_eps = 'small'": r"r.toml \[model\]: norm_eps = 'small' should be a number",
        "[model]\nnum_classes = 3": "unknown key 'num_classes'",
        "[model]\ndecoder_dim = 3": r"decoder_dim belongs in \[objective\]",
        "[view]\nnonsense = 3": "the keys are resize, crop_fraction, interpolation, mean, std",
        "[train]\nworkers = -1": "must be 0 .none. or more",
        "[optim": "cannot be read as TOML",
        "[train]\ntime = 'soon'": "write it as 90s, 10m or 2h",
        "[train]\nprecision = 'half'": "choose one of auto, fp32, bf16, fp16",
        "[augment]\nhflip = 2.0": "probability",
    }.items():
        path.write_text(text)
        with pytest.raises(VitralError, match=what):
            read_recipe(path)
    path.write_text(
        "nam = 1\n[model]\ndepht = 3\ndim = 'wide'\n[objective]\nsmothing = 0.1\n[train]\nsteps = 1.5\nbatch = 8\n"
    )
    with pytest.raises(VitralError, match="6 things to fix") as caught:  # all at once
        read_recipe(path)
    for each in ("nam", "depht", "wide", "smothing", "steps = 1.5", "the nearest is 'batch_size'"):
        assert each in str(caught.value)
    with pytest.raises(VitralError, match=r"no such recipe; there are r.toml"):
        read_recipe(tmp_path / "s.toml")


def test_values_merge_over_the_defaults():
    recipe = merge(Recipe(), {"optim": {"lr": 1}, "augment": {"scale": [0.2, 1]}}, "here")
    assert recipe.optim.lr == 1.0
    assert isinstance(recipe.optim.lr, float)
    assert recipe.augment.scale == (0.2, 1.0)
    assert recipe.train == TrainOptions()


def test_a_model_takes_its_own_familys_arguments_alone():
    recipe = merge(Recipe(), {"model": {"name": "swin_tiny_patch4_window7_224", "window": 4, "norm_eps": 1}}, "here")
    assert recipe.model == ModelOptions("swin_tiny_patch4_window7_224", window=(4, 4), norm_eps=1.0)
    assert open_config(recipe).window == (4, 4)
    named = merge(recipe, {"model": {"name": "vit_tiny_patch16_224"}}, "here")
    said = r"vit_tiny_patch16_224 \(family vit\) has no argument 'window'; nearest: .*; all: .*patch_size"
    with pytest.raises(VitralError, match=said):
        open_config(named)


def test_an_objective_takes_its_own_options_alone(tmp_path):
    path = tmp_path / "r.toml"
    for text, what in {
        "prototypes = 8": r"r.toml \[objective\]: prototypes is for dino; this is classify",
        "name = 'mae'\nprototypes = 'many'": "prototypes is for dino; this is mae",
        "name = 'mae'\nmask_ratio = 'half'": r"\[objective\]: mask_ratio = 'half' should be a number",
        "name = 'dino'\nprototype = 8": "unknown key 'prototype'; the nearest is 'prototypes'",
        "name = 'simclr'": "name = 'simclr': choose one of classify, segment, detect, mae, beit, patch, dino, tokenizer",
        "name = 'mae'\nlr = 1": r"lr belongs in \[optim\]",
    }.items():
        path.write_text(f"[objective]\n{text}")
        with pytest.raises(VitralError, match=what):
            read_recipe(path)
    path.write_text("[objective]\nname = 'beit'\nmask_ratio = 0.383")
    recipe = read_recipe(path)
    assert recipe.objective == BeitOptions(mask_ratio=0.383)
    assert merge(recipe, {"objective": {"tokenizer": "run"}}, FLAGS).objective == BeitOptions("run", 0.383)
    assert (
        merge(recipe, {"objective": {"name": "mae"}}, FLAGS).objective == MaeOptions()
    )  # the file's go with their own


def test_an_option_that_one_head_alone_has_names_the_head():
    assert merge(Recipe(), {"head": {"decoder_layers": 3}}, FLAGS).head == QueryOptions(decoder_layers=3)
    with pytest.raises(VitralError, match="--head-upscale is for linear, segformer; name that, too"):
        merge(Recipe(), {"head": {"head_upscale": 2}}, FLAGS)


def test_recipes_of_earlier_runs_are_read(tmp_path):
    """They held every objective's options: as they were by default anywhere, and as somebody set them in a run folder."""
    path = tmp_path / "recipe.toml"
    path.write_text("[objective]\nname = 'beit'\nsmoothing = 0.1\nlocal_scale = [0.05, 0.4]\nmask_ratio = 0.3\n")
    assert read_recipe(path).objective == read_recipe(path, stored=True).objective == BeitOptions(mask_ratio=0.3)
    path.write_text("[objective]\nname = 'beit'\ncodes = 8192")
    assert read_recipe(path, stored=True).objective == BeitOptions()
    with pytest.raises(VitralError, match="codes is for tokenizer; this is beit"):
        read_recipe(path)
    path.write_text("[objective]\nsmoothing = 0.2\nprototypes = 8")
    assert read_recipe(path, stored=True).objective == ClassifyOptions(smoothing=0.2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_comes_back_from_its_file(tmp_path, name):
    recipe = Recipe(objective=OBJECTIVES[name]())
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    assert read_recipe(path) == recipe


def test_what_the_command_line_offers_some_family_takes():
    """Of the types that it has there: a flag's value is never refused for its type alone."""
    hints, taken = typing.get_type_hints(ModelArguments), argument_types()
    assert hints.keys() - {"name"} <= taken.keys()
    kinds = {type(entry.config) for entry in MODELS.values()}
    for kind in kinds:
        for name, value in kind().arguments().items():
            if name in hints and value not in (None, ()):
                assert fitted(value, hints[name], name) == fitted(value, taken[name], name)


def test_durations():
    assert [seconds(t) for t in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    for bad in ("", "m", "-3s", "0", "45", "nan", "inf", "infs"):
        with pytest.raises(VitralError, match="10m"):
            seconds(bad)


def test_every_shipped_recipe_is_valid(pytestconfig):
    recipes = sorted((pytestconfig.rootpath / "recipes").glob("*.toml"))
    assert {"digits.toml", "fashion-mnist.toml", "elpv.toml", "vit-t4.toml"} <= {r.name for r in recipes}
    for path in recipes:
        recipe = read_recipe(path)
        assert path.read_text().startswith(("# vitral train ", "# vitral pretrain ")), path
        budgets = (recipe.train.epochs, recipe.train.steps, recipe.train.time)
        assert sum(b is not None for b in budgets) == 1, path


def test_the_t4_recipe_is_the_preset(pytestconfig):
    from vitral.models.zoo import model_config

    recipe = read_recipe(pytestconfig.rootpath / "recipes" / "vit-t4.toml")
    config = model_config(recipe.model.name, **recipe.model.arguments)
    assert (config.dim, config.num_heads, config.depth, config.dim * config.mlp_ratio) == (384, 6, 12, 1536)
    assert (config.patch_size, config.image_size) == (16, (224, 224))
    assert (recipe.train.batch_size, recipe.train.accumulation, recipe.train.steps) == (32, 4, 50_000)
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.warmup_steps) == (1e-3, 0.1, 1000)


def test_a_recipe_knows_what_was_said_of_it_even_where_that_is_the_default():
    base = merge(Recipe(), {"optim": {"clip": 1.0}, "train": {"epochs": 3.0}}, "a file")
    assert base == Recipe(train=TrainOptions(epochs=3.0))
    over = merge(base, {"train": {"time": "1m"}, "augment": {"hflip": 0.5}}, "flags")
    assert over.said == {"optim.clip", "train.epochs", "train.time", "augment.hflip"}
    assert (over.train.epochs, over.train.time) == (None, "1m")  # one budget takes the place of another
    assert "said" not in to_toml(over)
    with pytest.raises(VitralError, match="unknown key 'said'"):
        merge(Recipe(), {"said": ["optim.lr"]}, "a file")
