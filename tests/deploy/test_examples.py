"""Three pictures for an empty page."""

import json

import numpy as np
import pytest

from vitral.data import builtin
from vitral.data.preprocess import Preprocess
from vitral.deploy.viewer import examples as module
from vitral.deploy.viewer.examples import Examples, chosen, own_pictures, pictures
from vitral.deploy.viewer.images import Images
from vitral.errors import VitralError


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Machines that test are shared."""
    monkeypatch.setattr(module, "PATIENCE", 60)


def run_on(tmp_path, data):
    (tmp_path / "run.json").write_text(json.dumps({"data": data, "fingerprint": "0"}))
    (tmp_path / "recipe.toml").write_text("")
    return tmp_path


def test_a_run_shows_one_of_each_of_its_classes(shapes_folder, tmp_path):
    found = list(pictures(run_on(tmp_path, str(shapes_folder))))
    assert sorted(label for label, _ in found) == ["cross", "disc", "square"]
    for label, data in found:
        assert data == (shapes_folder / label / "00.png").read_bytes()


def test_a_model_file_in_its_run_will_do(shapes_folder, tmp_path):
    run = run_on(tmp_path, str(shapes_folder))
    assert own_pictures(run / "model.safetensors") == own_pictures(run)


def test_the_built_in_digits_are_at_hand(tmp_path):
    found = Examples(str(run_on(tmp_path, "digits")), Images()).stored()
    assert [stored.name for stored in found] == ["0", "4", "9"]
    assert {(stored.width, stored.height) for stored in found} == {(8, 8)}


@pytest.mark.parametrize("data", ["/no/such/folder", None])
def test_others_see_two_photographs_and_a_digit(tmp_path, data):
    model = tmp_path if data is None else run_on(tmp_path, data)
    found = Examples(str(model), Images()).stored()
    assert [(stored.name, stored.width, stored.height) for stored in found] == [
        ("temple", 640, 427), ("flower", 640, 427), ("digit 0", 8, 8),
    ]  # fmt: skip


def test_what_a_model_cannot_read_is_no_example(tmp_path):
    steps = Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3, min_size=16)
    assert [stored.name for stored in Examples(str(tmp_path), Images(steps=[steps])).stored()] == ["temple", "flower"]


def test_nothing_is_fetched_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "FASHION_DEBIAN", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(VitralError, match="would have to be fetched"):
        own_pictures(run_on(tmp_path, "fashion-mnist"))


def test_a_page_does_not_wait_long_for_them(tmp_path, monkeypatch):
    import threading

    held = threading.Event()
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "pictures", lambda model: [held.wait(), []][1])
    examples = Examples(str(tmp_path), Images())
    assert examples.stored() == []
    held.set()


def test_test_images_go_first():
    class Listing:
        targets = np.array([0, 0, 1, 1])
        given = ("train", "test", "test", "train")

        def describe(self, i):
            return "ab"[self.targets[i]]

    assert chosen(Listing()) == [1, 2]
