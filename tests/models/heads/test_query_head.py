"""The query head: over plain ViTs and pyramids, at any size, with and without a decoder; what it answers lies where it says."""

import pytest
import torch

from families import SHAPES, small
from vitral.layers.attention import recording
from vitral.models.heads.options import QueryOptions
from vitral.models.heads.query import QueryHead


def head_of(widths, strides, **options):
    torch.manual_seed(0)
    shape = {"query_dim": 16, "query_heads": 2, "pixel_dim": 6, "queries": 5} | options
    head = QueryHead(widths, strides, 3, QueryOptions(**shape))
    with torch.no_grad():
        for p in head.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return head


def plain(h, w, stride=8, batch=2, dim=12, count=2):
    torch.manual_seed(1)
    return [torch.randn(batch, h, w, dim) for _ in range(count)], [dim] * count, [stride] * count


@pytest.mark.parametrize("family", ["vit", *SHAPES])
@pytest.mark.parametrize("layers", [0, 2])
def test_every_family_at_a_size_that_is_not_square(family, layers):
    model = small(family, num_classes=0)
    images = torch.randn(2, 3, 64, 96)
    maps = model.features(images)
    head = head_of([each.shape[-1] for each in maps], model.strides, decoder_layers=layers).eval()
    found = head(maps, (64, 96))
    assert found.logits.shape == (2, 5, 3)
    assert found.boxes.shape == (2, 5, 4)
    assert found.repeated == (layers == 0)
    h, w = found.masks.shape[2:]
    assert (h * found.stride, w * found.stride) == (64, 96)
    trained = head.train()(maps, (64, 96))
    assert len(trained.earlier) == layers
    assert trained.masks is None
    stages = [*trained.earlier, trained]
    assert stages[0].centres.shape[1] == stages[0].logits.shape[1] > 5
    total = sum(each.logits.sum() + each.boxes.sum() + each.kernels.sum() for each in stages) + trained.pixels.sum()
    total.backward()
    assert all(p.grad is not None for p in head.parameters())


def test_recorded_attention_of_the_decoder_agrees_with_the_fused_path():
    maps, widths, strides = plain(12, 16)
    head = head_of(widths, strides, decoder_layers=2, queries=60).eval()
    fused = head(maps, (96, 128))
    with recording(head) as attention:
        explicit = head(maps, (96, 128))
    assert [tuple(each.shape) for each in attention.values()] == [(2, 2, 60, 60), (2, 2, 60, 192)] * 2
    for name in ("logits", "boxes", "masks"):
        assert (getattr(fused, name) - getattr(explicit, name)).abs().max() < 1e-5, name


def test_masks_are_products_of_kernels_and_pixels():
    maps, widths, strides = plain(4, 6)
    head = head_of(widths, strides, decoder_layers=1)
    trained, used = head.train()(maps, (32, 48)), head.eval()(maps, (32, 48))
    expected = torch.einsum("bqc,bchw->bqhw", trained.kernels, trained.pixels)
    assert expected.allclose(used.masks, atol=1e-5)
    assert used.masks.shape == (2, 5, 16, 24)
    assert used.stride == 2


@pytest.mark.parametrize("strides", [[8, 8], [4, 8, 16]])
def test_without_masks_nothing_is_computed_for_them(strides):
    torch.manual_seed(1)
    maps = [torch.randn(2, 64 // s, 96 // s, 12) for s in strides]
    head = head_of([12] * len(strides), strides, decoder_layers=1, masks=False)
    trained, used = head.train()(maps, (64, 96)), head.eval()(maps, (64, 96))
    assert (trained.pixels, trained.kernels, used.masks) == (None, None, None)
    assert used.boxes.shape == (2, 5, 4)
    stages = [*trained.earlier, trained]
    sum(each.logits.sum() + each.boxes.sum() for each in stages).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_at_the_start_boxes_are_anchors_around_their_places():
    maps, widths, strides = plain(4, 6)
    head = QueryHead(widths, strides, 3, QueryOptions(decoder_layers=0))
    found = head(maps, (30, 44))  # the maps reach beyond the image, 32 x 48
    assert found.centres[0, 0].tolist() == pytest.approx([4 / 44, 4 / 30])
    assert found.boxes[0, 7].tolist() == pytest.approx([(12 - 16) / 44, (12 - 16) / 30, (12 + 16) / 44, (12 + 16) / 30])
    assert found.logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)


def test_queries_are_the_best_places():
    maps, widths, strides = plain(4, 6)
    head = head_of(widths, strides, decoder_layers=0)
    every, best = head.train()(maps, (32, 48)), head.eval()(maps, (32, 48))
    expected = every.logits.amax(-1).sort(-1, descending=True).values[:, :5]
    assert best.logits.amax(-1).allclose(expected)


def test_fewer_places_than_queries():
    maps, widths, strides = plain(2, 2)
    head = head_of(widths, strides, decoder_layers=1, queries=50).eval()
    assert head(maps, (16, 16)).logits.shape == (2, 4, 3)
