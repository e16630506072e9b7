"""On an accelerator: mixed precision, loss scaling, and a step that agrees with the processor's."""

import pytest
import torch

from vitral.data.augment import Augmentation
from vitral.data.loader import Batch, TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.objectives.classify import Classify
from vitral.objectives.dino import SelfDistillation

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_gradients_are_near_the_processors(tiny_vit, dtype):
    model, images, targets = tiny_vit(), torch.randn(8, 1, 16, 16), torch.randint(0, 5, (8,))
    Classify()(model, Batch((images,), targets, torch.arange(len(targets))))["loss"].backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    model.cuda()
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    with torch.autocast("cuda", dtype):
        loss = Classify()(model, Batch((images,), targets, torch.arange(len(targets))).to(torch.device("cuda")))["loss"]
    scaler.scale(loss).backward()
    got = torch.cat([p.grad.flatten() for p in model.parameters()]).cpu() / scaler.get_scale()
    assert (wanted - got).norm() < 0.03 * wanted.norm()


def test_recorded_attention_agrees_with_the_fused_kernel(tiny_vit):
    model, images = tiny_vit().cuda(), torch.randn(2, 1, 16, 16).cuda()
    logits, layers = model.forward_with_attention(images)
    assert (logits - model(images)).abs().max() < 1e-5
    assert (layers[0].sum(-1) - 1).abs().max() < 1e-5


def test_loader_processes_hand_out_pinned_batches_and_the_share_of_dino_stays_here(tiny_vit):
    split, steps = open_data("digits", DataOptions()).splits["train"], Preprocess(8, 8, 1, (0.5,), (0.5,))
    batches = TrainingBatches(split, steps, [Augmentation(AugmentOptions(crop="none"), steps)], 4, 0)
    batch = next(iter(batches.stream(0, 1, 1, pinned=True)))
    assert batch.images.is_pinned()
    assert batch.to(torch.device("cuda")).images.is_cuda
    model = SelfDistillation(tiny_vit(num_classes=0), prototypes=8).cuda()
    assert model.share.device.type == "cpu"
    assert model.student.head.last_layer.weight.is_cuda
