"""Training that starts from other weights: what is kept, changed and told, what learns, and that a resumed run needs its source no more."""

import dataclasses
import tomllib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import reference
from families import CLASSIFIERS, small
from vitral.checkpoints.bundle import load_model, save_model
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.create import open_model
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.layers.lora import Adapted
from vitral.layers.position import resize_positions
from vitral.models.common import RATES
from vitral.models.zoo import FAMILIES, build, family_of, model_config
from vitral.objectives.options import MaeOptions
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.loop import Loop
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions, TransferOptions
from vitral.training.shape import open_config
from vitral.training.start import resume, start
from vitral.training.toml import merge, to_toml
from vitral.training.transfer import learning, open_initial, restrict

LABELS = ["square", "disc", "cross", "ring"]


def saved(model, path, labels=LABELS, recipe=None):
    """A model file of ours."""
    c = model.config
    steps = Preprocess(*c.image_size, c.in_channels, (0.2,) * c.in_channels, (0.3,) * c.in_channels)
    card = ModelCard(family_of(c), c.arguments(), labels if c.num_classes else [], steps, recipe or {})
    save_model(path, model, card)
    return path


def begun(init, labels, zero_head=True, channels=3, model=None, **transfer):
    """The model that training would start with, and what is told of it."""
    recipe = Recipe(model=ModelOptions(**(model or {})), transfer=TransferOptions(init=str(init), **transfer))
    recipe, initial = open_initial(recipe)
    fresh = build(open_config(recipe, in_channels=channels, num_classes=len(labels)))
    initial.fill(fresh, labels, zero_head)
    return fresh.eval(), initial, recipe


def same(a, b, prefixes=("",)):
    """Whether the tensors of two state dicts under these prefixes are the same ones."""
    names = [n for n in a if n.startswith(tuple(prefixes))]
    return bool(names) and all(torch.equal(a[n], b[n]) for n in names)


@pytest.mark.parametrize("family", ["vit", "deit", "swin", "pvt_v2", "resnet"])
def test_known_classes_keep_the_head_in_the_datas_order(tmp_path, family):
    source = small(family, **({"distilled": True} if family == "deit" else {}))
    ours, initial, _ = begun(saved(source, tmp_path / "m.safetensors"), sorted(LABELS))
    images = reference.make_images((2, 3, 32, 32))
    order = [LABELS.index(label) for label in sorted(LABELS)]
    with torch.inference_mode():
        assert torch.allclose(ours(images), source(images)[:, order], atol=1e-6)
    assert any("the head is kept" in note and "order" in note for note in initial.notes)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]])  # fewer, and as many but others
@pytest.mark.parametrize("family", ["vit", "beit"])
def test_other_classes_get_a_new_head(tmp_path, family, labels):
    source = small(family)
    path = saved(source, tmp_path / "m.safetensors")
    ours, initial, _ = begun(path, labels)
    assert not any(p.any() for p in ours.head.parameters())
    assert same({n: t for n, t in source.state_dict().items() if not n.startswith("head.")}, ours.state_dict())
    assert any(f"a new head of {len(labels)} classes, begun at zero: the source's 4" in note for note in initial.notes)
    again, initial, _ = begun(path, labels, zero_head=False)
    assert again.head.weight.any() == (family == "beit")  # a ViT's own head starts at zero
    assert any("at random" in note for note in initial.notes)


def test_a_new_heads_biases_stay_where_the_recipe_puts_them(tmp_path):
    recipe = Recipe(transfer=TransferOptions(init=str(saved(small("vit"), tmp_path / "m.safetensors"))))
    recipe, initial = open_initial(recipe)
    fresh = build(open_config(recipe, in_channels=3, num_classes=2))
    nn.init.constant_(fresh.head.bias, -3.0)
    nn.init.normal_(fresh.head.weight)
    initial.fill(fresh, ["a", "b"], zero_head=True)
    assert fresh.head.bias.tolist() == [-3.0, -3.0]
    assert not fresh.head.weight.any()


def test_a_hugging_face_folder_at_another_resolution(tmp_path):
    folder = reference.transformers_folder("hf_vit_small", tmp_path / "theirs")
    size = (48, 80)
    ours, initial, recipe = begun(folder, ["a", "b"], model={"image_size": size, "drop_path": 0.1})
    theirs = reference.state_dict("hf_vit_small")
    patch = recipe.model.get("patch_size")
    assert recipe.model.get("position_resize") == "hf"
    assert ours.image_size == size
    assert ours.config.drop_path == 0.1
    old = theirs["vit.embeddings.position_embeddings"]
    side = round((old.shape[1] - 1) ** 0.5)
    wanted = resize_positions(old, (side, side), (-(-size[0] // patch), -(-size[1] // patch)), "hf", 1)
    assert torch.equal(ours.pos_embed, wanted)
    assert any("by the rule of hf" in note for note in initial.notes)
    own, _, recipe = begun(folder, ["a", "b"])
    assert own.image_size == tuple(reference.spec("hf_vit_small")["input"][2:])
    with torch.inference_mode():
        images = reference.images("hf_vit_small")
        assert torch.allclose(own.represent(images), open_model(folder).model.eval().represent(images), atol=1e-6)


def test_grey_images_sum_the_colours_and_colour_ones_share_the_grey(tmp_path):
    source = small("vit")
    ours, initial, _ = begun(saved(source, tmp_path / "m.safetensors"), LABELS, channels=1)
    assert torch.equal(ours.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True))
    assert any("from 3 channels to 1" in note for note in initial.notes)
    grey = small("vit", in_channels=1)
    ours, _, _ = begun(saved(grey, tmp_path / "g.safetensors"), LABELS)
    images = reference.make_images((2, 1, 32, 32))
    with torch.inference_mode():
        assert torch.allclose(ours(images.expand(-1, 3, -1, -1)), grey(images), atol=1e-5)


def masked(tmp_path, kind):
    """A masked autoencoder from somewhere, and its encoder's tensors under our names."""
    if kind == "transformers":
        folder = reference.transformers_folder("hf_vit_mae_pretraining", tmp_path / "theirs")
        return folder, open_model(folder).model.encoder.state_dict()
    model, recipe = small("mae"), None
    encoder = model.encoder.state_dict()
    if kind == "run":  # what a run of ours leaves: the encoder, and the recipe that says what it was
        model, recipe = model.encoder, {"objective": {"name": "mae"}}
    return saved(model, tmp_path / "m.safetensors", recipe=recipe), encoder


@pytest.mark.parametrize("kind", ["ours", "run", "transformers"])
def test_a_masked_autoencoder_gives_its_encoder(tmp_path, kind):
    path, encoder = masked(tmp_path, kind)
    ours, initial, recipe = begun(path, ["a", "b"])
    assert (recipe.model.get("pooling"), recipe.model.get("fc_norm")) == ("mean", True)
    assert same({n: t for n, t in encoder.items() if not n.startswith("norm.")}, ours.state_dict())
    assert torch.equal(ours.fc_norm.weight, torch.ones_like(ours.fc_norm.weight))
    told = "\n".join(initial.notes)
    assert "left out, as the model was changed: norm." in told
    assert "starts afresh, as the model was changed: fc_norm." in told
    assert "a new norm, as MAE is fine-tuned" in told
    for chosen, transfer in (({"pooling": "cls"}, {}), ({}, {"freeze": "encoder"}), ({}, {"lora_rank": 2})):
        ours, _, recipe = begun(path, ["a", "b"], model=chosen, **transfer)
        assert recipe.model.get("pooling") == "cls"
        assert same(encoder, ours.state_dict())  # its norm, too


@pytest.mark.parametrize("classes", [0, 3])  # a masked autoencoder's release holds its encoder alone
def test_bare_weights_need_the_name_of_their_model(tmp_path, classes):
    source = build(model_config("vit_tiny_patch16_224", image_size=32, num_classes=classes)).state_dict()
    save_file(source, tmp_path / "bare.safetensors")
    with pytest.raises(VitralError, match="does not say what model it is for"):
        begun(tmp_path / "bare.safetensors", ["a", "b"])
    with pytest.raises(VitralError, match="does not fit"):
        begun(tmp_path / "bare.safetensors", ["a", "b"], model={"name": "deit3_small_patch16_224"})
    named = {"name": "vit_tiny_patch16_224", "image_size": (64, 64)}
    ours, initial, recipe = begun(tmp_path / "bare.safetensors", ["a", "b"], model=named)
    assert (recipe.model.get("depth"), recipe.model.get("patch_size"), ours.grid) == (12, 16, (4, 4))
    assert same(source, ours.state_dict(), ("blocks.", "patch_embed.", "norm.", "cls_token"))
    told = "\n".join(initial.notes)
    assert "from 2x2 to" in told
    assert ("the source's 3 classes are others" if classes else "the source has none") in told


def test_a_name_decides_over_what_the_source_says_of_itself(tmp_path):
    path = saved(small("vit", fc_norm=True, pooling="mean"), tmp_path / "m.safetensors")
    shape = {"patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2}
    ours, _, recipe = begun(path, LABELS, model={"name": "vit", **shape})
    assert (recipe.model.name, recipe.model.get("pooling"), recipe.model.get("fc_norm")) == ("vit", "cls", False)
    assert recipe.model.get("image_size") == (32, 32)  # the source's
    assert torch.equal(ours.norm.weight, torch.ones(24))  # afresh


def test_the_representation_layer_is_dropped(tmp_path):
    source = small("vit", representation_dim=8)
    path = saved(source, tmp_path / "m.safetensors")
    ours, initial, _ = begun(path, LABELS)
    assert isinstance(ours.pre_logits, nn.Identity)
    assert any("left out" in note and "pre_logits" in note for note in initial.notes)
    assert any("a new head" in note for note in initial.notes)
    kept, _, _ = begun(path, LABELS, model={"representation_dim": 8})
    assert same(source.state_dict(), kept.state_dict())


def test_what_does_not_fit_is_refused(tmp_path):
    path = saved(small("vit"), tmp_path / "m.safetensors")
    with pytest.raises(VitralError, match=r"of another shape.*\n.*leave out the settings|leave out the settings"):
        begun(path, LABELS, model={"dim": 48})
    with pytest.raises(VitralError, match="only in the file"):
        begun(path, LABELS, model={"depth": 1})
    with pytest.raises(VitralError, match="no such file"):
        begun(tmp_path / "nothing.safetensors", LABELS)
    with pytest.raises(VitralError, match="init: belong to training with labels"):
        open_initial(Recipe(transfer=TransferOptions(init=str(path)), objective=MaeOptions()))
    for wrong in ({"freeze": "head"}, {"lora_rank": -1}, {"lora_alpha": 0.0}, {"lora_rank": 2, "freeze": "encoder"}):
        with pytest.raises(VitralError, match=r"transfer\."):
            TransferOptions(**wrong)


@pytest.mark.parametrize("family", [f for f in CLASSIFIERS if f != "mae"])
def test_a_recipe_file_holds_the_whole_architecture(tmp_path, family):
    changes = {"qkv_bias": False, "norm_eps": 1e-12, "position_resize": "hf", "layer_scale": None}
    known = {f.name for f in dataclasses.fields(FAMILIES[family][0])}
    may = {k: v for k, v in changes.items() if k in known and (k != "layer_scale" or family in ("vit", "beit"))}
    model = small(family, **may)
    _, _, recipe = begun(saved(model, tmp_path / "m.safetensors"), LABELS)
    table = tomllib.loads(to_toml(recipe))
    again = merge(Recipe(), table, "recipe.toml")
    assert open_config(again, in_channels=3, num_classes=4) == model.config
    assert known - {"in_channels", "num_classes"} == recipe.model.arguments.keys()


def test_the_encoder_alone_is_frozen_without_noise(tmp_path):
    source = small("vit", drop_path=0.2, dropout=0.1)
    ours, _, recipe = begun(saved(source, tmp_path / "m.safetensors"), ["a", "b"], freeze="encoder")
    assert all(getattr(ours.config, rate) == 0 for rate in RATES)
    restrict(ours, recipe.transfer)
    assert {n for n, p in ours.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert learning(ours, recipe.transfer)[0].startswith("50 of ")
    assert learning(ours, TransferOptions()) == []


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        ("vit", {"patch_embed", "cls_token", "pos_embed"}),
        ("deit", {"patch_embed", "cls_token", "pos_embed"}),
        ("swin", {"patch_embed"}),
        ("resnet", {"conv1", "bn1"}),
    ],
)
def test_the_embedding_is_frozen(family, frozen):
    model = small(family)
    restrict(model, TransferOptions(freeze="embed"))
    assert {n.split(".")[0] for n, p in model.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.parametrize("freeze", ["none", "embed", "encoder"])
def test_frozen_batch_norms_keep_their_statistics(freeze):
    model = small("resnet")
    restrict(model, TransferOptions(freeze=freeze))
    before = {n: b.clone() for n, b in model.named_buffers()}
    model.train()(reference.make_images((4, 3, 32, 32)))
    changed = {n.split(".")[0] for n, b in model.named_buffers() if not torch.equal(b, before[n])}
    every = {"bn1", "layer1", "layer2", "layer3", "layer4"}
    assert changed == {"none": every, "embed": every - {"bn1"}, "encoder": set()}[freeze]
    model.eval()


def test_lora_leaves_only_its_own_and_the_head_to_learn():
    model = small("vit")
    restrict(model, TransferOptions(lora_rank=3, head_norm=True))
    learn = {n for n, p in model.named_parameters() if p.requires_grad}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    wanted = {f"blocks.{i}.{layer}.{part}" for i in range(2) for layer in layers for part in "ab"}
    assert learn == wanted | {"head.linear.weight", "head.linear.bias"}
    with pytest.raises(VitralError, match="lora_rank 2"):
        restrict(small("resnet"), TransferOptions(lora_rank=2))


RUN = {"steps": 6, "batch_size": 8, "checkpoint_every": 2, "validate_every": 6, "workers": 0, "precision": "fp32", "device": "cpu"}  # fmt: skip


def run(folder, data, source, **transfer):
    recipe = Recipe(
        transfer=TransferOptions(init=str(source), **transfer),
        optim=OptimOptions(ema=0.9),
        train=TrainOptions(**RUN),
        model=ModelOptions(image_size=(24, 24), dropout=0.1),
    )
    return start(str(data), recipe, folder, Display())


@pytest.mark.parametrize("killed_at", [1, 5])
@pytest.mark.parametrize(
    "transfer", [{}, {"lora_rank": 2, "head_norm": True}, {"freeze": "encoder", "head_norm": True}]
)
def test_a_run_from_other_weights_is_resumed_without_them(
    tmp_path, shapes_folder, monkeypatch, transfer, capsys, killed_at
):
    source = saved(small("vit", in_channels=1), tmp_path / "source.safetensors")
    whole = run(tmp_path / "whole", shapes_folder, source, **transfer)
    assert whole.train()
    assert any("starts from" in line for line in capsys.readouterr().err.splitlines())

    class Killed(Exception):
        pass

    taken, step = [], Loop.update

    def update(loop):
        taken.append(loop.progress.step)
        if len(taken) == killed_at:
            raise Killed
        return step(loop)

    killed = run(tmp_path / "killed", shapes_folder, source, **transfer)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", update)
        with pytest.raises(Killed):
            killed.train()
    source.unlink()
    assert resume(tmp_path / "killed", Display()).train()
    files = [load_file(folder / "model.safetensors") for folder in (whole.folder, killed.folder)]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][n], files[1][n]) for n in files[0])

    model, card = load_model(whole.folder / "model.safetensors")
    assert not any(isinstance(m, Adapted) for m in model.modules())
    assert card.preprocess.mean == (0.2,)  # as the source was trained
    learner = whole.averaged_model()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 24, 24)).astype(np.float32))
    assert whole.loop.progress.best_step == RUN["steps"]
    with torch.inference_mode():
        assert torch.allclose(learner.eval()(images), model(images), atol=1e-6)
