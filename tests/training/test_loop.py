"""The loop: gradients that do not depend on how a batch is cut, schedules, budgets, and what happens when memory runs out."""

import dataclasses

import pytest
import torch

from vitral.data.augment import Augmentation
from vitral.data.loader import Batch, TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.objectives.classify import Classify
from vitral.training.config import Recipe
from vitral.training.loop import Budget, Loop
from vitral.training.optim import build_optimizers, decays, update_average
from vitral.training.options import OptimOptions, TrainOptions
from vitral.training.state import Progress


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.records, self.texts, self.checkpoints = [], [], []

    def trained(self, record):
        self.records.append(record)

    def message(self, text):
        self.texts.append(text)

    def checkpoint(self, progress, *, validate):
        self.checkpoints.append((progress.step, validate))


@pytest.fixture
def make_loop(shapes_folder, tiny_vit):
    data = open_data(shapes_folder, DataOptions(val_fraction=0, test_fraction=0))

    def make(batch_size=8, accumulation=1, objective=None, optim=None, **train):
        recipe = Recipe(
            optim=OptimOptions(lr=1e-3, **(optim or {})),
            train=TrainOptions(batch_size=batch_size, accumulation=accumulation, workers=0, **({"steps": 4} | train)),
        )
        steps = Preprocess(20, 20, 1, (0.5,), (0.5,))
        augmentation = [Augmentation(AugmentOptions(crop="none"), steps)]
        batches = TrainingBatches(data.splits["train"], steps, augmentation, batch_size * accumulation, 0)
        model = tiny_vit(image_size=20, num_classes=3).train()
        average = {n: p.detach().clone() for n, p in model.named_parameters()} if recipe.optim.ema else None
        progress = Progress(batch_size=batch_size, accumulation=accumulation)
        return Loop(
            model,
            objective or Classify(0.1),
            batches,
            build_optimizers(model, recipe.optim),
            average,
            progress,
            recipe,
            torch.device("cpu"),
            "fp32",
        )

    return make


def batch_of(images, targets):
    return Batch((images,), targets, torch.arange(len(targets)))


def gradient(loop, images, targets, heard=None):
    loop.model.zero_grad()
    outcome = loop.gradients(batch_of(images, targets), heard or Heard())
    return torch.cat([p.grad.flatten().double() for p in loop.model.parameters()]), outcome


@pytest.mark.parametrize("images", [32, 30, 25, 9, 1])
def test_accumulated_gradients_are_the_large_batchs(make_loop, images):
    """8 x 4 against 32, full and with a short last micro-batch."""
    pixels = torch.randint(0, 256, (images, 1, 20, 20), dtype=torch.uint8)
    targets = torch.randint(0, 3, (images,))
    whole, one = gradient(make_loop(32), pixels, targets)
    parts, four = gradient(make_loop(8, 4), pixels, targets)
    assert (whole - parts).norm() <= 1e-6 * whole.norm()
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-6)
    assert one["correct"] == four["correct"]


def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(make_loop):
    class Hungry(Classify):
        def __call__(self, model, batch):
            if len(batch) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(model, batch)

    pixels, targets = torch.randint(0, 256, (16, 1, 20, 20), dtype=torch.uint8), torch.randint(0, 3, (16,))
    wanted, _ = gradient(make_loop(16), pixels, targets)
    loop, heard = make_loop(16, objective=Hungry(0.1)), Heard()
    got, _ = gradient(loop, pixels, targets, heard)
    assert (wanted - got).norm() <= 1e-6 * wanted.norm()
    assert (loop.progress.batch_size, loop.progress.accumulation) == (2, 8)
    assert len(heard.texts) == 3
    assert "batch of 16 becomes 8 x 2" in heard.texts[0]

    class Starving(Classify):
        def __call__(self, model, batch):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(VitralError, match="single image"):
        gradient(make_loop(4, objective=Starving()), pixels, targets)


def test_other_errors_of_the_model_are_not_taken_for_lack_of_memory(make_loop):
    class Broken(Classify):
        def __call__(self, model, batch):
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        gradient(make_loop(objective=Broken()), torch.zeros(2, 1, 20, 20), torch.zeros(2, dtype=torch.long))


def test_a_loss_that_is_not_finite_stops_the_run(make_loop):
    class Exploding(Classify):
        def __call__(self, model, batch):
            return {"loss": model(batch.images).sum() * float("nan"), "correct": torch.tensor(0)}

    with pytest.raises(VitralError, match=r"step 1: the loss is nan.*--lr"):
        make_loop(objective=Exploding()).run(Heard())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loop_learns_one_batch_by_heart(make_loop, optimizer):
    optim = {"optimizer": optimizer, "weight_decay": 0.0}
    loop = make_loop(batch_size=90, steps=100, optim=optim, objective=Classify())
    heard = Heard()
    assert loop.run(heard)
    assert heard.records[0]["loss"] > 0.5
    assert heard.records[-1]["top1"] == 1.0
    assert heard.checkpoints[-1] == (100, True)


def test_validation_and_checkpoints_come_when_asked(make_loop):
    heard = Heard()
    make_loop(steps=10, validate_every=4, checkpoint_every=3).run(heard)
    assert heard.checkpoints == [(3, False), (4, True), (6, False), (8, True), (9, False), (10, True)]


def test_a_time_budget_ends_by_the_clock_and_anneals(make_loop):
    heard = Heard()
    loop = make_loop(steps=None, time="2s")
    loop.run(heard)
    assert loop.progress.elapsed >= 2
    assert heard.records[-1]["share"] == 1
    assert heard.records[-1]["lr"] < 2e-4


def test_budgets():
    assert Budget.of(Recipe(train=TrainOptions(epochs=2.5)), 100).steps == 250
    assert Budget.of(Recipe(train=TrainOptions(time="1.5m")), 100).seconds == 90
    assert Budget(None, 10.0).share(Progress(elapsed=25)) == 1


def test_only_matrices_decay(tiny_vit):
    model = tiny_vit(num_registers=1, position="learned2d")
    kept = {n for n, p in model.named_parameters() if not decays(n, p)}
    assert kept == {n for n, p in model.named_parameters() if p.ndim < 2} | {
        "cls_token",
        "reg_token",
        "pos_embed.rows",
        "pos_embed.columns",
    }
    for name, decay in (("adamw", [0.3, 0.0]), ("muon", [0.3, 0.0, 0.3])):
        optimizers = build_optimizers(model, OptimOptions(name, lr=1.0, weight_decay=0.3))
        groups = [g for optimizer in optimizers for g in optimizer.param_groups]
        assert [g["weight_decay"] for g in groups] == decay
        assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in groups[2]["params"]} == {
        id(p) for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2
    }


def test_the_average_follows_its_definition():
    p, average, wanted = torch.zeros(3), {"p": torch.ones(3)}, 1.0
    for step in range(30):
        p += 1
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * (step + 1)
        update_average(average, [("p", p)], 0.9, step)
    assert average["p"].tolist() == pytest.approx([wanted] * 3, rel=1e-6)


def test_the_averaged_weights_are_kept_apart(make_loop):
    loop = make_loop(optim={"ema": 0.9})
    loop.run(Heard())
    own = dict(loop.model.named_parameters())
    assert any(not torch.equal(own[n], a) for n, a in loop.average.items())
    assert dataclasses.asdict(loop.progress)["step"] == 4


class Measuring:
    """Looks that find other work each time."""

    def __init__(self, **_):
        self.took = []

    def look(self, seconds_of):
        self.took.append(seconds_of(1))
        return f"{len(self.took)} looks"


def test_measuring_threads_changes_nothing_of_a_run(make_loop, monkeypatch):
    def trained():
        torch.manual_seed(0)
        loop, heard = make_loop(steps=25), Heard()
        assert loop.run(heard)
        return loop.model.state_dict(), heard.texts

    quiet, _ = trained()
    monkeypatch.setattr("vitral.training.loop.Contention", Measuring)
    threads = torch.get_num_threads()
    measured, texts = trained()
    assert texts == [f"{n} looks" for n in range(1, 25)]
    assert torch.get_num_threads() == threads
    assert all(torch.equal(quiet[name], measured[name]) for name in quiet)
