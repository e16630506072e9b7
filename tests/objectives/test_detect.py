"""Detection's losses: what is matched to what, what costs what, and that how a batch is cut changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vitral.data.loader import Batch
from vitral.data.things import Things
from vitral.models.heads.options import QueryOptions
from vitral.models.heads.outputs import Found
from vitral.models.heads.query import QueryHead
from vitral.objectives.boxes import giou, iou
from vitral.objectives.detect import Detect, class_loss, one_to_many, one_to_one
from vitral.objectives.truth import Truth
from vitral.randomness import keys

SIDE = 32


class Maps(nn.Module):
    """A head over maps that a convolution makes of the images, with learned positions."""

    def __init__(self, layers, classes=3, stuff=()):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.positions = nn.Parameter(torch.randn(SIDE // 4, SIDE // 4, 12))
        options = QueryOptions(decoder_layers=layers, queries=12, query_dim=16, query_heads=2, pixel_dim=6, stuff=stuff)
        self.head = QueryHead([12], [4], classes, options)

    def forward(self, images):
        return self.head([self.stem(images).permute(0, 2, 3, 1) + self.positions], tuple(images.shape[2:]))


def things(*images, masks=True, crowds=()):
    """Of each image a list of (class, x0, y0, x1, y1) in pixels."""
    boxes = [torch.tensor([row[1:] for row in rows], dtype=torch.float32).reshape(-1, 4) for rows in images]
    drawn = []
    for each in boxes:
        marks = torch.zeros(len(each), SIDE, SIDE, dtype=torch.uint8)
        for mark, (x0, y0, x1, y1) in zip(marks, each.int().tolist(), strict=True):
            mark[y0:y1, x0:x1] = 1
        drawn.append(marks)
    empty = [torch.tensor(c, dtype=torch.float32).reshape(-1, 4) / SIDE for c in crowds or [()] * len(images)]
    classes = tuple(torch.tensor([row[0] for row in rows], dtype=torch.int64) for rows in images)
    return Things(classes, tuple(each / SIDE for each in boxes), tuple(drawn) if masks else None, tuple(empty))


ROWS = [
    [(0, 2, 2, 14, 12), (2, 16, 10, 31, 31)],
    [],
    [(1, 0, 0, 6, 30)],
    [(2, 20, 20, 30, 30), (2, 4, 4, 12, 12), (0, 6, 16, 18, 28)],
]


def batch_of(targets, seed=0):
    torch.manual_seed(1)
    images = torch.randn(len(targets), 3, SIDE, SIDE) * 0.1
    for image, classes, boxes in zip(images, targets.classes, targets.boxes, strict=True):
        for k, (x0, y0, x1, y1) in zip(classes.tolist(), (boxes * SIDE).round().int().tolist(), strict=True):
            image[k, y0:y1, x0:x1] += 1
    batch = Batch((images,), targets, torch.from_numpy(keys(seed, "sample", 0, np.arange(len(targets)))))
    return replace(batch, whole=Detect().count(batch))


def gradients(model, objective, batch, size):
    model.zero_grad()
    for part in batch.split(size):
        objective(model, part)["loss"].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("layers", [0, 2])
def test_a_batch_in_parts_gives_the_same_gradients(layers):
    model, batch = Maps(layers), batch_of(things(*ROWS, *ROWS))
    whole = gradients(model, Detect(), batch, 8)
    parts = gradients(model, Detect(), batch, 2)
    assert whole.norm() > 0
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("layers", [0, 1])
def test_a_few_images_are_learned(layers):
    model, batch = Maps(layers), batch_of(things(*ROWS))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    first = last = None
    for _ in range(200):
        losses = Detect()(model, batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        last = float(losses["loss"].detach())
        first = first or last
    assert set(losses) == {"loss", "class", "box", "giou", "mask", "dice"}
    assert last < 0.5 * first
    found = model.eval()(batch.images)
    best = found.logits[2].flatten().argmax().item()
    assert best % 3 == 1
    assert iou(found.boxes[2, best // 3], batch.targets.boxes[2][0]) > 0.6


def test_images_without_objects_only_push_classes_down():
    model, batch = Maps(1), batch_of(things([], []))
    losses = Detect()(model, batch)
    assert losses["class"] > 0
    assert {losses[name].item() for name in ("box", "giou", "mask", "dice")} == {0}
    losses["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_objects_without_masks_have_no_mask_loss():
    model = Maps(1)
    whole = things(*ROWS)
    without = replace(whole, masks=tuple(torch.zeros_like(each) for each in whole.masks))
    losses = Detect()(model, batch_of(without))
    assert losses["mask"] == losses["dice"] == 0
    assert "mask" not in Detect()(model, batch_of(things(*ROWS, masks=False)))


def test_nothing_that_is_found_in_a_crowd_is_wrong():
    boxes = torch.tensor([[[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]]])
    stage = Found(torch.full((1, 2, 3), 2.0, requires_grad=True), boxes)
    batch = batch_of(things([], crowds=[(0, 0, 16, 16)]))
    truth = Truth.of(batch.targets, batch.keys)
    matches = one_to_one(stage, truth, torch.zeros(1, 1, dtype=torch.bool), None)
    assert len(matches.image) == 0
    class_loss(stage, truth, matches, torch.zeros(0)).backward()
    assert stage.logits.grad[0, 0].abs().sum() == 0
    assert stage.logits.grad[0, 1].min() > 0


def test_each_object_gets_an_answer_of_its_own():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.02, 0.0, 0.52, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    stage = Found(torch.zeros(1, 3, 3), boxes)
    batch = batch_of(things([(0, 0, 0, 16, 16), (1, 16, 16, 32, 32), (0, 1, 0, 17, 16)]))
    matches = one_to_one(stage, Truth.of(batch.targets, batch.keys), torch.zeros(1, 3, dtype=torch.bool), None)
    assert dict(zip(matches.answer.tolist(), matches.object.tolist(), strict=True)) == {0: 0, 1: 2, 2: 1}


def dense(grid, boxes=None, logits=None):
    y, x = torch.meshgrid(*[(torch.arange(grid) + 0.5) / grid] * 2, indexing="ij")
    middles = torch.stack([x, y], -1).reshape(1, -1, 2)
    boxes = torch.cat([middles - 0.1, middles + 0.1], -1) if boxes is None else boxes
    return Found(torch.zeros(1, grid**2, 3) if logits is None else logits, boxes, centres=middles)


def test_the_dense_stage_learns_at_places_inside_the_box():
    batch = batch_of(things([(1, 8, 8, 20, 16)]))
    truth = Truth.of(batch.targets, batch.keys)
    matches = one_to_many(dense(8), truth, torch.zeros(1, 1, dtype=torch.bool), batch.targets.masks, 8)
    inside = {8 * y + x for y in (2, 3) for x in (2, 3, 4)}
    assert set(matches.answer.tolist()) == inside  # six places, though eight may
    assert matches.weight.sum().item() == pytest.approx(1)
    few = one_to_many(dense(8), truth, torch.zeros(1, 1, dtype=torch.bool), batch.targets.masks, 2)
    assert set(few.answer.tolist()) <= inside
    assert len(few.answer) == 2


def test_a_tiny_object_is_learned_at_the_nearest_place():
    batch = batch_of(things([(0, 15, 15, 17, 17)]))
    truth = Truth.of(batch.targets, batch.keys)
    matches = one_to_many(dense(2), truth, torch.zeros(1, 1, dtype=torch.bool), batch.targets.masks, 8)
    assert len(matches.answer) == 1


def test_a_place_learns_one_object():
    batch = batch_of(things([(0, 0, 0, 32, 32), (1, 4, 4, 28, 28)]))
    truth = Truth.of(batch.targets, batch.keys)
    boxes = truth.boxes[:, 1:2].expand(1, 64, 4)  # all places say the inner box
    matches = one_to_many(dense(8, boxes), truth, torch.zeros(1, 2, dtype=torch.bool), batch.targets.masks, 64)
    assert len(set(matches.answer.tolist())) == len(matches.answer)
    assert set(matches.object[matches.weight > 0.001].tolist()) == {0, 1}


def test_stuff_has_no_box_and_is_learned_where_it_lies():
    targets = things([(2, 0, 0, 32, 8), (0, 10, 14, 20, 30)])
    none, some, only = (Detect()(Maps(1, stuff=stuff), batch_of(targets)) for stuff in ((), (2,), (0, 2)))
    assert 0 < some["box"] < none["box"]
    assert only["box"] == only["giou"] == 0
    assert only["mask"] > 0
    batch = batch_of(targets)
    matches = one_to_many(dense(8), Truth.of(targets, batch.keys), torch.tensor([[True, False]]), targets.masks, 16)
    assert {answer // 8 for answer in matches.answer[matches.object == 0].tolist()} == {0, 1}


def test_points_come_from_the_sample_and_not_from_its_batch():
    batch = batch_of(things(*ROWS))
    whole = Truth.of(batch.targets, batch.keys)
    alone = Truth.of(batch.targets[2:3], batch.keys[2:3])
    assert alone.points[0, 0].equal(whole.points[2, 0])
    assert 0.2 < whole.inside[2, 0].mean() < 0.8


def test_what_is_not_finite_reaches_the_loss():
    model = Maps(1)
    with torch.no_grad():
        model.head.decoder.answer.label.weight[0, 0] = torch.nan
    assert Detect()(model, batch_of(things(*ROWS)))["loss"].isnan()


def test_giou_is_that_of_the_paper():
    a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 3.0])
    assert iou(a, b).item() == pytest.approx(1 / 7)
    assert giou(a, b).item() == pytest.approx(1 / 7 - 2 / 9)
    assert giou(a, a).item() == pytest.approx(1)
    assert giou(a, a + 10).item() < -0.8
