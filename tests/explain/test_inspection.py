"""Inspecting models of every family: what is measured, what is missing and why, and that nothing is left behind."""

import json

import numpy as np
import pytest
import torch

from asking import predictor_of
from families import CLASSIFIERS, small
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.explain.inspection.as_json import as_json
from vitral.explain.inspection.heads import head_importance, without_head
from vitral.explain.inspection.images import look_at_images
from vitral.explain.inspection.inspect import inspect
from vitral.explain.inspection.watch import named_blocks
from vitral.explain.inspection.weights import filters, offset_biases, positions
from vitral.layers.attention import attention_layers, recording

SIZES = {"swin": (32, 48), "swinv2": (40, 32), "pvt": (64, 96), "pvt_v2": (64, 32), "resnet": (64, 64)}
MODELS = {
    **{family: (family, {"image_size": SIZES.get(family, (32, 48))}) for family in CLASSIFIERS},
    "registers": ("vit", {"num_registers": 2, "image_size": (32, 48)}),
    "conv stem": ("vit", {"stem": (4, 8, 16), "image_size": (32, 48)}),
    "no positions": ("vit", {"position": "none"}),
    "distilled": ("deit", {"distilled": True}),
    "rotary": ("dino", {"position": "rotary"}),
    "shared bias": ("beit", {"relative": "shared", "absolute": True}),
    "linear": ("pvt_v2", {"linear": True, "image_size": (64, 64)}),
}
LABELS = ("cross", "disc", "square")
PYRAMIDS = ("swin", "swinv2", "pvt", "pvt_v2", "linear", "resnet")


def model_of(name):
    family, options = MODELS[name]
    return small(family, **options).backbone


def images_for(model, count=5, seed=1):
    size = (count, model.config.in_channels, *model.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_measured_and_left_as_it_was(name):
    model = model_of(name).train()
    images, before = images_for(model), {k: v.clone() for k, v in model.state_dict().items()}
    found = look_at_images(model, [images[:4], images[4:]])
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(layer.recorder is None for _, layer in attention_layers(model))
    assert found.images == 5
    assert len(found.layers) == 1 + len(named_blocks(model))
    assert found.cka.shape == (len(found.layers),) * 2
    np.testing.assert_allclose(found.cka.diagonal(), 1)
    assert len(found.attention) == len(attention_layers(model))
    diagonal = np.hypot(*model.image_size)
    for (_, layer), one in zip(attention_layers(model), found.attention, strict=True):
        assert one.entropy.shape == (layer.num_heads,)
        assert (one.entropy <= one.most + 1e-5).all()
        if one.distance is not None:
            assert one.distance.shape == (layer.num_heads,)
            assert (one.distance >= 0).all()
            assert (one.distance < diagonal).all()
    for one in found.layers:
        assert (np.diff(one.norms) >= 0).all()
        assert one.norms[0] > 0
        assert one.step is None or -1 <= one.step <= 1
    classless = [one.name for one in found.attention if one.distance is None]
    assert classless == (["blocks_token_only.0.attn", "blocks_token_only.1.attn"] if name == "cait" else [])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in PYRAMIDS])
def test_norms_and_distances_of_plain_families_against_a_direct_computation(name):
    model, images = model_of(name), images_for(model_of(name), 3)
    outputs = []
    handle = named_blocks(model)[-1][1].register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.no_grad(), recording(model) as maps:
        model(images)
    handle.remove()
    found = look_at_images(model, [images])
    h, w = (-(-side // model.patch_size) for side in model.image_size)
    tokens = outputs[0][:, outputs[0].shape[1] - h * w :]
    norms = tokens.square().sum(-1).sqrt()
    assert found.layers[-1].norms[2] == pytest.approx(norms.double().quantile(0.5).item(), rel=1e-5)
    assert found.layers[-1].norms[-1] == pytest.approx(norms.max().item(), rel=1e-5)
    assert len(found.layers[-1].prefix) == outputs[0].shape[1] - h * w
    centres = np.stack(np.mgrid[:h, :w], -1).reshape(-1, 2) * model.patch_size
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1)  # [h*w, h*w]
    first = maps[0].numpy()[..., -h * w :, -h * w :]  # [B, H, h*w, h*w], prefix tokens left out
    direct = (first / first.sum(-1, keepdims=True) * apart).sum(-1).mean((0, 2))
    np.testing.assert_allclose(found.attention[0].distance, direct, rtol=1e-5)
    assert found.attention[0].uniform == pytest.approx(apart.mean(), rel=1e-5)


@pytest.mark.parametrize("family", ["swin", "swinv2"])
def test_windows_read_inside_themselves_and_across_the_old_border_when_shifted(family):
    """A map of 8 x 8 places, windows of 4 x 4; shifted by 2, so that they hold regions of 4 x 4, 4 x 2, 2 x 4 and 2 x 2 places."""
    model = small(family)
    still, shifted = look_at_images(model, [images_for(model)]).attention[:2]

    def even(h, w):
        cells = np.stack(np.mgrid[:h, :w], -1).reshape(-1, 2) * 4.0
        return np.linalg.norm(cells[:, None] - cells, axis=-1).mean()

    regions = [(a, b) for a in (4, 2, 2) for b in (4, 2, 2)]
    assert still.uniform == pytest.approx(even(4, 4), rel=1e-5)
    assert shifted.uniform == pytest.approx(sum(a * b * even(a, b) for a, b in regions) / 64, rel=1e-5)
    assert shifted.most == pytest.approx(sum(a * b * np.log(a * b) for a, b in regions) / 64, rel=1e-5)
    assert (shifted.distance < 4 * np.hypot(4, 4)).all(), "what the shift brought together is not read"


def test_keys_of_a_reduced_map_lie_in_the_middle_of_what_they_come_from():
    model = small("pvt", image_size=(64, 64))
    first = look_at_images(model, [images_for(model)]).attention[0]  # 16 x 16 places of 4 pixels, 2 x 2 keys of 32
    places = np.stack(np.mgrid[:16, :16], -1).reshape(-1, 2) * 4 + 2.0
    keys = np.stack(np.mgrid[:2, :2], -1).reshape(-1, 2) * 32 + 16.0
    assert first.uniform == pytest.approx(np.linalg.norm(places[:, None] - keys, axis=-1).mean(), rel=1e-5)
    assert first.most == pytest.approx(np.log(4), rel=1e-5)


def test_artefacts_are_counted_where_they_are():
    model = small("vit", dim=8, image_size=32, in_channels=1)
    with torch.no_grad():
        for _, block in named_blocks(model):
            block.attn.proj.weight.zero_(), block.attn.proj.bias.zero_()
            block.mlp.fc2.weight.zero_(), block.mlp.fc2.bias.zero_()
        model.pos_embed.normal_(0, 0.01)
        model.pos_embed[0, 1 + 6] = 100.0  # row 1, column 2
        model.patch_embed.proj.weight.mul_(0.01)
        model.patch_embed.proj.bias.fill_(1.0)
    last = look_at_images(model, [images_for(model, 8)]).layers[-1]
    assert last.share == 1 / 16
    assert last.where[1, 2] == 1
    assert last.where.sum() == 1
    assert look_at_images(small("vit", in_channels=1), [images_for(model, 8)]).layers[0].cut is None


@pytest.mark.parametrize("family", ["vit", "dino", "beit", "cait", "swin", "swinv2", "pvt", "pvt_v2"])
def test_without_a_head_is_as_if_its_rows_of_the_output_projection_were_zero(family):
    model = small(family)
    images, targets = images_for(model), torch.tensor([0, 1, 2, 3, 0])
    heads = head_importance(model, [(images[:3], targets[:3]), (images[3:], targets[3:])], independent=False)
    with torch.no_grad():
        logits = model(images).double()
        assert heads.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), rel=1e-5)
        assert heads.accuracy == (logits.argmax(1) == targets).double().mean().item()
        number, (name, layer) = len(attention_layers(model)) - 1, attention_layers(model)[-1]
        d = layer.proj.in_features // layer.num_heads
        layer.proj.weight[:, -d:] = 0
        loss = torch.nn.functional.cross_entropy(model(images).double(), targets).item()
    assert heads.layers[number].layer == name
    assert heads.layers[number].loss[-1] == pytest.approx(loss, abs=1e-6)
    gone = head_importance(model, [(images, targets)], independent=False)
    assert gone.layers[number].loss[-1] == pytest.approx(gone.loss, abs=1e-6), "a head that says nothing is not missed"
    assert heads.layers[0].loss[0] != heads.loss


def test_a_head_comes_back_when_something_goes_wrong():
    model = small("vit")
    layer = attention_layers(model)[0][1]
    with pytest.raises(RuntimeError), without_head(layer, 0):
        raise RuntimeError
    assert not layer.proj._forward_pre_hooks


def test_heads_with_several_labels_an_image():
    model = small("vit")
    images, targets = images_for(model), torch.tensor([[1.0, 0, 0, 1]]).expand(5, 4)
    heads = head_importance(model, [(images, targets)], independent=True)
    logits = model(images).detach().double()
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.double()).item()
    assert heads.loss == pytest.approx(binary, rel=1e-6)
    assert heads.accuracy == ((logits >= 0) == (targets > 0)).all(1).double().mean().item()


@pytest.mark.parametrize("name", MODELS)
def test_what_needs_no_images_is_there_or_has_its_sentence(name):
    model = model_of(name)
    found, places, biases = filters(model), positions(model), offset_biases(model)
    assert found.pictures.shape[-1] == 3
    assert found.pictures.isfinite().all()
    overlapping = name in ("hybrid", "conv stem", "resnet", "pvt_v2", "linear")
    assert (found.shares is None) == overlapping
    if isinstance(places, str):
        assert name in ("no positions", "beit", "swin", "swinv2", "pvt_v2", "linear", "resnet")
        assert "position" in places
    else:
        for one in places:
            for i, row in enumerate(one.rows):
                for j, column in enumerate(one.columns):
                    assert one.similarity[i, j, row, column].item() == pytest.approx(1)
            assert one.similarity.abs().max() < 1 + 1e-6
    assert isinstance(biases, str) != (name in ("beit", "shared bias", "swin", "swinv2"))


def test_large_grids_are_asked_about_in_some_places():
    found = positions(small("vit", image_size=(256, 64)))[0]
    assert found.similarity.shape == (8, 8, 32, 8)
    assert found.rows == [2, 6, 10, 14, 18, 22, 26, 30]
    assert found.columns == list(range(8))


@pytest.mark.parametrize("family", ["swin", "swinv2", "beit"])
def test_offset_biases_are_what_the_layers_add(family):
    """Between the first place and the one a row down and two to the right."""
    model = small(family)
    for found, (name, layer) in zip(offset_biases(model), attention_layers(model), strict=True):
        assert found.name == name
        middle = found.values.shape[1] // 2
        if family == "beit":
            added = model.biases(model.grid)[int(name.split(".")[1])][0, :, 1 + 0, 1 + 4 + 2]
        else:
            added = layer.bias()[0, :, 0, layer.windows.window[1] + 2]
        torch.testing.assert_close(found.values[:, middle - 1, middle - 2], added.detach())


@pytest.fixture
def shapes(shapes_folder):
    return open_data(shapes_folder, DataOptions(), training=False, labelled=False)


def test_without_data_images_are_asked_for_and_with_it_nothing_is_missing(tiny_vit, shapes):
    predictor = predictor_of(tiny_vit(num_classes=3, image_size=20), labels=LABELS)
    missing = inspect(predictor).missing()
    assert {name for name, why in missing.items() if why == "needs images: give DATA"} == {
        "attention", "layers", "cka", "heads",
    }  # fmt: skip
    found = inspect(predictor, shapes, images=9, head_images=6, batch_size=4)
    assert set(found.missing()) == {"offset_biases"}
    assert (found.images, found.split, found.heads.images) == (len(shapes.splits["test"].thinned(9)), "test", 6)
    again = inspect(predictor, shapes, images=9, head_images=6, batch_size=4)
    assert json.dumps(as_json(found)) == json.dumps(as_json(again))


def test_json_holds_the_numbers_and_null_for_what_is_none(tiny_vit, shapes):
    found = inspect(predictor_of(tiny_vit(num_classes=3, image_size=20), labels=LABELS), shapes, images=8)
    plain = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert plain["offset_biases"] is None
    assert plain["missing"]["offset_biases"].startswith("VisionTransformer has no relative position bias")
    np.testing.assert_allclose(plain["attention"][1]["distance_pixels"], found.attention[1].distance, rtol=1e-5)
    np.testing.assert_allclose(plain["cka"], found.cka, rtol=1e-5)
    np.testing.assert_allclose(plain["positions"][0]["cosine"], found.positions[0].similarity, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plain["heads"]["without"][0]["loss"], found.heads.layers[0].loss, rtol=1e-5)
    assert plain["layers"][0]["similarity_to_layer_before"] is None


@pytest.mark.parametrize(
    ("classes", "labels", "options", "why"),
    [
        (3, ("a", "b", "c"), {}, "classes 'cross', 'disc', 'square' are not among the model's"),
        (0, (), {}, "no head for classes"),
        (3, LABELS, {"head_images": 0}, "left out, as asked"),
    ],
)
def test_heads_that_cannot_be_scored_have_their_sentence(tiny_vit, shapes, classes, labels, options, why):
    predictor = predictor_of(tiny_vit(num_classes=classes, image_size=20), labels=labels)
    found = inspect(predictor, shapes, images=3, **options)
    assert why in found.heads
    assert "4 images" in found.cka
    assert not isinstance(found.attention, str)


def test_a_resnet_has_layers_and_no_attention(shapes):
    found = inspect(predictor_of(small("resnet", num_classes=3, in_channels=1), labels=LABELS), shapes, images=4)
    assert set(found.missing()) == {"positions", "offset_biases", "attention", "heads"}
    assert len(found.layers) == 5


def test_a_tokenizer_has_neither_blocks_nor_attention():
    from vitral.models.zoo import build, model_config

    tokenizer = build(model_config("tokenizer", image_size=16, patch_size=4, in_channels=1, dim=16, depth=1, codes=8))
    missing = inspect(predictor_of(tokenizer, labels=())).missing()
    assert set(missing) == {"positions", "offset_biases", "attention", "layers", "cka", "heads"}
    assert missing["layers"] == "Tokenizer has no blocks"
