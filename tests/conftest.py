"""Small real things that many tests share."""

import gc
import os
from pathlib import Path

# pytest-xdist runs a process a core; the processes that tests start keep to it, too.
os.environ["OMP_NUM_THREADS"] = "1"
# ... and keep what Python compiles: else each of them would compile all of vitral again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from drawing import draw_shape

# `make test` draws the same examples every time, `make test-all` other ones (--hypothesis-profile=random).
# Neither fails because the machine has other work: no example has a deadline, nor has the making of one.
for _name, _steady in (("steady", True), ("random", False)):
    settings.register_profile(
        _name, derandomize=_steady, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("steady")


@pytest.fixture
def tiny_vit():
    """A ViT of 2 layers with a head that is not zero, in evaluation mode."""
    from vitral.checkpoints.create import create_model

    def make(**overrides):
        torch.manual_seed(0)
        options = {
            "image_size": 16,
            "patch_size": 4,
            "in_channels": 1,
            "num_classes": 5,
            "dim": 32,
            "depth": 2,
            "num_heads": 4,
        }
        model = create_model("vit_tiny_patch16_224", **(options | overrides)).eval()
        if model.num_classes:
            torch.nn.init.normal_(model.head.weight, std=0.1)
        return model

    return make


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory) -> Path:
    """Class folders disc, square and cross with 30 PNG files each."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    for kind, label in enumerate(("disc", "square", "cross")):
        (root / label).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(draw_shape(kind, i)).save(root / label / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def shapes_run(shapes_folder, tmp_path_factory) -> Path:
    """A finished run on the shapes."""
    from vitral.cli import main

    out = tmp_path_factory.mktemp("runs") / "shapes"
    with pytest.raises(SystemExit) as stop:
        main(["train", str(shapes_folder), "--out", str(out), "--steps", "40", "--model", "vit_tiny_patch16_224", "--dim", "32", "--depth", "2",
              "--num-heads", "2", "--image-size", "20", "20", "--patch-size", "4", "--batch-size", "16", "--precision", "fp32",
              "--workers", "0"])  # fmt: skip
    assert stop.value.code == 0
    return out


def pytest_collection_finish():
    """What is imported stays: the collector of cycles need not go through torch again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` are skipped, by name, where there is none. What starts most processes comes first: in the end one core would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_world.py")
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
