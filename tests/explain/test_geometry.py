"""Where attention lies in the image: what `Geometry` reads of a place is what the layer's output there depends on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import small
from vitral.errors import VitralError
from vitral.explain.capture import capture
from vitral.explain.geometry import Tokens, Windowed, shares, weights
from vitral.models.pvt import ReducedAttention

OPTIONS = {"swin": {"window": (4, 3)}, "swinv2": {"window": 4}}


def dependence(layer, x, *context):
    """[h*w, h*w]: whether the output at a place depends on the input at another, by autograd."""
    x = x.detach().requires_grad_(True)
    out = layer(x, *context)[0].flatten(0, 1)  # [h*w, D]
    rows = [torch.autograd.grad(o.square().sum(), [x], retain_graph=True)[0][0].flatten(0, 1) for o in out]
    return torch.stack(rows).abs().sum(-1).numpy() > 1e-20  # across a shift the attention is 1e-44


@pytest.mark.parametrize("windowing", ["timm", "hf"])
@pytest.mark.parametrize("family", ["swin", "swinv2"])
@pytest.mark.parametrize("size", [(40, 56), (44, 28), (20, 36)])
def test_windows_lie_where_the_layer_reads(family, windowing, size):
    window = {} if windowing == "timm" else {"window": 4}
    model = small(family, image_size=size, windowing=windowing, **OPTIONS[family] | window)
    torch.manual_seed(1)
    images = torch.randn(1, 3, *size)
    seen = capture(model, images)
    contexts, blocks = [], model.ordered_blocks()
    hooks = [block.attn.register_forward_pre_hook(lambda _, x: contexts.append(x)) for block in blocks]
    model(images)
    for hook in hooks:
        hook.remove()
    for layer, block, context in zip(seen.layers, blocks, contexts, strict=True):
        geometry, (h, w) = layer.geometry, layer.geometry.grid
        assert isinstance(geometry, Windowed)
        assert sorted(geometry.slots[geometry.slots >= 0]) == list(range(h * w))
        read = np.stack([geometry.read(layer.array(), divmod(i, w)).mean(0).ravel() for i in range(h * w)])
        wanted = dependence(block.attn, *context)
        np.testing.assert_array_equal(read > 1e-20, wanted)
        mean = geometry.read(layer.array(), None)
        np.testing.assert_allclose(mean.mean(0).ravel(), read.mean(0), atol=1e-7)
        assert mean.sum() <= len(mean) * (1 + 1e-5)


@pytest.mark.parametrize("grid", [(5, 7), (8, 4), (3, 9)])
@pytest.mark.parametrize(("reduction", "linear"), [(2, False), (4, False), (8, False), (1, False), (2, True)])
def test_reduced_keys_cover_the_places_that_they_come_from(grid, reduction, linear):
    torch.manual_seed(0)
    layer = ReducedAttention(8, 2, reduction, linear, True, 1e-5)
    x = torch.randn(1, *grid, 8, requires_grad=True)
    keys = layer.reduce(x)[0]  # [M, D]
    grads = [torch.autograd.grad(k.square().sum(), [x], retain_graph=True)[0][0].abs().sum(-1) for k in keys]
    covered = torch.stack(grads).numpy() > 0  # [M, h, w]
    rows, columns = (shares(layer.spans(n), n) for n in grid)
    found = np.einsum("mr,nc->mnrc", rows, columns).reshape(-1, *grid)
    np.testing.assert_array_equal(found > 0, covered)
    np.testing.assert_allclose(found.sum((1, 2)), 1)


@pytest.mark.parametrize("family", ["pvt", "pvt_v2"])
def test_what_a_pyramid_reads_adds_up_to_one(family):
    model = small(family, image_size=(72, 104))
    seen = capture(model, torch.randn(1, 3, 72, 104, generator=torch.Generator().manual_seed(0)))
    for layer, stride in zip(seen.layers, (4, 8, 16, 32), strict=True):
        geometry = layer.geometry
        assert geometry.grid == (-(-72 // stride), -(-104 // stride))
        assert geometry.stride == stride
        read = geometry.read(layer.array(), (1, 2))
        if isinstance(geometry, Tokens):
            whole = layer.array()[:, 1 + geometry.grid[1] + 2]
            np.testing.assert_allclose(read.reshape(2, -1), whole[:, 1:], atol=1e-7)
        else:
            np.testing.assert_allclose(read.sum((1, 2)), 1, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.data())
def test_the_right_row_is_read_for_any_prefix_and_grid(prefix, h, w, heads, data):
    a = np.random.default_rng(0).dirichlet(np.ones(prefix + h * w), (heads, prefix + h * w))
    row, column = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    geometry = Tokens((h, w), 8, tuple(f"token {i}" for i in range(prefix)), "mean")
    patch, mean = geometry.read(a, (row, column)), geometry.read(a, "mean")
    assert patch.shape == mean.shape == (heads, h, w)
    np.testing.assert_array_equal(patch[-1].ravel(), a[-1, prefix + row * w + column, prefix:])
    np.testing.assert_allclose(mean[0, 0, w - 1], a[0, prefix:, prefix + w - 1].mean())
    np.testing.assert_array_equal(geometry.read(a, None), mean)
    for token in range(prefix):
        np.testing.assert_array_equal(geometry.read(a, token)[0].ravel(), a[0, token, prefix:])
    keys = geometry.keys(a, weights((row, column), prefix, (h, w)))
    np.testing.assert_allclose(geometry.prefixes(keys).sum(1) + geometry.places(keys).sum((1, 2)), 1)


@pytest.mark.parametrize("query", [(2, 0), (0, 3), (-1, 0)])
def test_a_query_outside_the_grid_is_an_error_with_the_range(query):
    with pytest.raises(VitralError, match=r"row in 0\.\.1 and a column in 0\.\.2"):
        Tokens((2, 3), 8, ("class token",), "cls").read(np.ones((1, 7, 7)), query)


@pytest.mark.parametrize(
    ("family", "options", "names"),
    [
        ("vit", {"num_registers": 2}, ("class token", "register 1", "register 2")),
        ("vit", {"num_registers": 1, "class_token": False, "pooling": "mean"}, ("register 1",)),
        ("deit", {"distilled": True}, ("class token", "distillation token")),
        ("deit", {}, ("class token",)),
        ("dino", {"num_registers": 4}, ("class token", "register 1", "register 2", "register 3", "register 4")),
        ("beit", {}, ("class token",)),
        ("swin", {}, ()),
    ],
)
def test_a_token_before_the_patches_is_asked_by_its_number(family, options, names):
    model = small(family, **options)
    layer = capture(model, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))).layers[-1]
    geometry, array = layer.geometry, layer.array()
    assert geometry.prefix == names
    for i, name in enumerate(names):
        np.testing.assert_array_equal(geometry.read(array, i).reshape(2, -1), array[:, i, len(names) :])
        assert geometry.words(i) == (name if name.startswith("register") else f"the {name}")
    for outside in (-1, len(names)):
        says = f"numbered 0 to {len(names) - 1}" if names else "there are only patches"
        with pytest.raises(VitralError, match=f"query {outside}: no such token, .*{says}"):
            geometry.read(array, outside)
    if names[:1] == ("class token",):
        np.testing.assert_array_equal(geometry.read(array, 0), geometry.read(array, "cls"))


def test_weights_add_up_to_one_for_every_reader():
    for reader in ("cls", "mean", "cls_dist", "cls_mean", (1, 2), 0, 1):
        asked = weights(reader, 2, (2, 3))
        assert asked.shape == (8,)
        assert asked.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights("cls_mean", 2, (1, 2)), [0.5, 0, 0.25, 0.25])
    np.testing.assert_allclose(weights((1, 0), 1, (2, 2)), [0, 0, 0, 1, 0])
    with pytest.raises(VitralError, match=r"row in 0\.\.1 and a column in 0\.\.2"):
        weights((2, 0), 1, (2, 3))


def test_a_cait_has_layers_of_patches_and_layers_of_the_class_token():
    model = small("cait", image_size=(40, 56))
    seen = capture(model, torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0)))
    first, last = seen.layers[0], seen.layers[-1]
    with pytest.raises(VitralError, match="no class token"):
        first.geometry.read(first.array(), "cls")
    with pytest.raises(VitralError, match="this layer has cls only"):
        last.geometry.read(last.array(), (0, 0))
    with pytest.raises(VitralError, match="this layer has cls only"):
        last.geometry.read(last.array(), 1)
    np.testing.assert_array_equal(last.geometry.read(last.array(), 0), last.geometry.read(last.array(), "cls"))
    np.testing.assert_array_equal(last.geometry.read(last.array(), None).reshape(2, -1), last.array()[:, 0, 1:])
    patches = first.array()  # [H, 35, 35]
    np.testing.assert_array_equal(first.geometry.square(patches, 36)[:, 1:, 1:], patches)
    assert not first.geometry.square(patches, 36)[:, 0].any()
    assert not last.geometry.square(last.array(), 36)[:, 1:].any()
