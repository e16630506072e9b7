"""The nearest training images: the right ones, indexed once, in turn with the page, and kept for the next time."""

import base64
import io
import json
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from viewing import encoded, png

from asking import predictor_of
from families import small
from processes import PATIENCE, eventually
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.deploy.viewer import neighbours
from vitral.deploy.viewer.neighbours import Neighbours, sample
from vitral.deploy.worker import Worker
from vitral.evaluation.probes import features
from vitral.predict import Predictor, load

LABELS = ["cross", "disc", "square"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vitral" / "neighbours"


@pytest.fixture
def predictor():
    return predictor_of(small("vit", image_size=20, patch_size=4, in_channels=1, num_classes=3), labels=LABELS)


class Turns:
    """A worker that counts; whatever is computed outside of its turns is noticed by the tests."""

    def __init__(self):
        self.taken = 0
        self.inside = False

    def __call__(self, function):
        assert not self.inside
        self.taken += 1
        self.inside = True
        try:
            return function()
        finally:
            self.inside = False


def answered(made, image, count=12, model=0):
    """The answer once there is one."""

    def there():
        found = made.answer(model, image, count)
        assert found["state"] != "indexing" or 0 <= found["done"] <= found["total"] or found["total"] == 0
        return found["state"] != "indexing" and found

    return eventually(there)


def test_they_are_the_nearest_by_cosine_of_what_the_head_reads(predictor, shapes_folder):
    image = encoded(20, 20, seed=1177)
    found = answered(Neighbours([predictor], [""], str(shapes_folder), Turns()), image, 5)
    split = open_data(shapes_folder, DataOptions()).splits["train"]
    read = features(predictor, split)
    with torch.inference_mode():
        own = predictor.model.represent(predictor.preprocess(image)[None])[0].numpy()
    cosines = read @ own / np.linalg.norm(read, axis=1) / np.linalg.norm(own)
    best = np.argsort(-cosines)[:5]
    assert found["state"] == "ready"
    assert [one["name"] for one in found["neighbours"]] == [split.names[i] for i in best]
    assert [one["similarity"] for one in found["neighbours"]] == pytest.approx(cosines[best], abs=2e-3)
    assert [one["labels"] for one in found["neighbours"]] == [[split.names[i].split("/")[0]] for i in best]
    assert sum(vote["share"] for vote in found["votes"]) == pytest.approx(1)
    assert f"all {len(split)} training images" in found["words"]
    shown = Image.open(io.BytesIO(base64.b64decode(found["neighbours"][0]["picture"].partition(",")[2])))
    assert np.array_equal(np.asarray(shown)[..., 0], split.read(int(best[0]), 1)[0])


def test_the_picture_itself_is_marked_and_has_no_vote(predictor, shapes_folder):
    split = open_data(shapes_folder, DataOptions()).splits["train"]
    image = (shapes_folder / split.names[3]).read_bytes()
    found = answered(Neighbours([predictor], [""], str(shapes_folder), Turns()), image, 1)
    assert [(one["name"], one["same"]) for one in found["neighbours"]] == [(split.names[3], True)]
    assert found["votes"] == []


def test_a_built_in_image_is_known_by_its_pixels():
    from sklearn.datasets import load_digits

    predictor = predictor_of(small("vit", image_size=8, patch_size=2, dim=8, in_channels=1, num_classes=10))
    split = sample(open_data("digits", DataOptions()).splits["train"], 20)
    number = int(split.names[7].partition("/")[2])
    image = png(np.rint(load_digits().images[number] * (255 / 16)).astype(np.uint8))
    found = answered(Neighbours([predictor], [""], "digits", Turns(), most=20), image, 20)
    assert [one["name"] for one in found["neighbours"] if one["same"]] == [f"digits/{number}"]


def test_all_computing_takes_turns_in_small_parts(predictor, shapes_folder, monkeypatch):
    """By a clock on which an image takes 19 ms, and so five of them a turn."""
    turns, sizes, now = Turns(), [], [0.0]

    def watched(predictor, split, **options):
        assert turns.inside
        sizes.append(len(split))
        now[0] += 0.019 * len(split)
        return features(predictor, split, **options)

    monkeypatch.setattr(neighbours, "features", watched)
    monkeypatch.setattr(neighbours, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    answered(Neighbours([predictor], [""], str(shapes_folder), turns), encoded(20, 20, seed=101))
    assert sizes == [4, *[5] * 11, 4]  # of 63 images
    assert turns.taken == len(sizes)


def test_an_index_is_kept_for_the_next_time_and_made_again_when_it_is_broken(predictor, shapes_folder, cache):
    image = encoded(20, 20, seed=125)
    first = answered(Neighbours([predictor], [""], str(shapes_folder), Turns()), image)
    (kept,) = cache.glob("*")
    again = Turns()
    assert answered(Neighbours([predictor], [""], str(shapes_folder), again), image) == first
    assert again.taken == 0
    whole = kept.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"nonsense"):
        kept.write_bytes(broken)
        again = Turns()
        assert answered(Neighbours([predictor], [""], str(shapes_folder), again), image) == first
        assert again.taken > 0
        assert kept.read_bytes() == whole
    with torch.no_grad():
        predictor.model.norm.bias += 0.1
    again = Turns()
    answered(Neighbours([predictor], [""], str(shapes_folder), again), image)
    assert again.taken > 0, "other weights have another index"


def test_a_cache_that_cannot_be_written_is_said_and_does_without(predictor, shapes_folder, cache, capsys):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"a file where the folder should be")
    found = answered(Neighbours([predictor], [""], str(shapes_folder), Turns()), encoded(20, 20, seed=125))
    assert found["state"] == "ready"
    assert "is not cached" in capsys.readouterr().err


def test_of_many_images_some_are_drawn_the_same_ones_each_time(predictor, shapes_folder):
    split = open_data(shapes_folder, DataOptions()).splits["train"]
    some = sample(split, 10)
    assert len(set(some.names)) == 10
    assert some.names == sample(split, 10).names
    assert some.names == [name for name in split.names if name in set(some.names)]
    found = answered(Neighbours([predictor], [""], str(shapes_folder), Turns(), most=10), encoded(20, 20, seed=101), 99)
    assert {one["name"] for one in found["neighbours"]} == set(some.names)
    assert "10 of 63 training images, drawn at random" in found["words"]


def test_a_run_knows_its_own_images(shapes_run):
    predictor = load(shapes_run)
    found = answered(Neighbours([predictor], [str(shapes_run)], None, Turns()), encoded(20, 20, seed=1199), 3)
    assert found["state"] == "ready"
    assert found["words"] == "the nearest in shapes, among all 63 training images"
    other = answered(Neighbours([predictor], [""], "digits", Turns(), most=20), encoded(20, 20, seed=1199), 3)
    assert other["words"].endswith("the model was trained on other images, or on these divided otherwise")


@pytest.fixture
def cleaned(shapes_run, shapes_folder, tmp_path):
    """(a copy of a run and of its data, the names of its training images), to be cleaned."""
    data, run = tmp_path / "shapes", tmp_path / "run"
    shutil.copytree(shapes_folder, data)
    shutil.copytree(shapes_run, run)
    described = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(described | {"data": str(data)}))
    return run, data, open_data(data, DataOptions()).splits["train"].names


def test_a_folder_that_was_cleaned_shows_those_that_remain_and_says_how_many_are_gone(cleaned):
    """What the doctor advises: remove images, correct labels, rename; and images that are new, some smaller than a patch."""
    run, data, names = cleaned
    image = encoded(20, 20, seed=1199)
    gone, moved = names[:2], names[2]
    for name in gone:
        (data / name).unlink()
    to = next(label for label in LABELS if not moved.startswith(label))
    (data / moved).rename(data / to / "moved.png")
    (data / to / "new.png").write_bytes(image)
    (data / to / "tiny.png").write_bytes(encoded(2, 2))
    (data / to / "cut.png").write_bytes(encoded(20, 20)[:-50])
    found = answered(Neighbours([load(run)], [str(run)], None, Turns()), image, 99)
    assert found["state"] == "ready"
    assert {one["name"] for one in found["neighbours"]} == {*names[3:], f"{to}/moved.png"}
    assert found["words"] == (
        "the nearest in shapes, among all 61 training images that are still there (1 image that cannot be read and 1 image that is "
        "smaller than one patch left out); 2 of the 63 that the model was trained on are gone"
    )
    assert [to] in [one["labels"] for one in found["neighbours"] if one["name"] == f"{to}/moved.png"]


def test_one_class_that_is_left_has_neighbours_and_none_that_is_has_a_sentence(cleaned):
    run, data, names = cleaned
    image = encoded(20, 20, seed=1199)
    for label in LABELS[1:]:
        shutil.rmtree(data / label)
    left = [name for name in names if name.startswith(LABELS[0])]
    found = answered(Neighbours([load(run)], [str(run)], None, Turns()), image, 99)
    assert {one["name"] for one in found["neighbours"]} == set(left)
    assert found["words"].endswith(f"{63 - len(left)} of the 63 that the model was trained on are gone")
    for name in left:
        (data / name).unlink()
    none = answered(Neighbours([load(run)], [str(run)], None, Turns()), image, 99)
    assert none["state"] == "none"
    assert "holds none of the 63 images" in none["why"]
    assert "--neighbours DATA" in none["why"]
    shutil.rmtree(data)
    none = answered(Neighbours([load(run)], [str(run)], None, Turns()), image, 99)
    assert "there is no such folder" in none["why"]
    assert "--neighbours DATA" in none["why"]


def test_a_run_that_does_not_know_its_images_shows_them_while_they_are_the_same(cleaned):
    run, data, names = cleaned
    (run / "training-images.bin").unlink()
    found = answered(Neighbours([load(run)], [str(run)], None, Turns()), encoded(20, 20, seed=1199), 99)
    assert {one["name"] for one in found["neighbours"]} == set(names)
    (data / names[0]).unlink()
    found = answered(Neighbours([load(run)], [str(run)], None, Turns()), encoded(20, 20, seed=1199), 99)
    assert "changed since the run" in found["why"]


def test_images_smaller_than_a_patch_are_left_out_of_any_folder(predictor, tmp_path):
    predictor = Predictor(
        predictor.model, replace(predictor.card, preprocess=replace(predictor.card.preprocess, min_size=4))
    )
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(encoded(20, 20, seed=1000 + i))
    (tmp_path / "thin.png").write_bytes(encoded(3, 200))
    found = answered(Neighbours([predictor], [""], str(tmp_path), Turns()), encoded(20, 20, seed=1001))
    assert sorted(one["name"] for one in found["neighbours"]) == [f"{i}.png" for i in range(6)]
    assert "all 6 training images (1 image that is smaller than one patch left out)" in found["words"]


def test_without_a_run_or_its_data_there_are_none_and_a_sentence(predictor, tmp_path):
    image = encoded(20, 20, seed=101)
    found = answered(Neighbours([predictor], [str(tmp_path / "model.safetensors")], None, Turns()), image)
    assert found["state"] == "none"
    assert "--neighbours DATA" in found["why"]
    gone = answered(Neighbours([predictor], [""], str(tmp_path / "gone"), Turns()), image)
    assert gone["state"] == "none"
    assert "there is no such folder" in gone["why"]


def test_images_with_several_labels_or_none(tmp_path):
    model = small("vit", image_size=20, patch_size=4, in_channels=1, num_classes=3)
    rows = ["image,label"]
    for i, said in enumerate(["a;b", "b;c", "a", "", "c"] * 4):
        (tmp_path / f"{i}.png").write_bytes(encoded(20, 20, seed=i))
        rows.append(f"{i}.png,{said}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    predictor = predictor_of(model, task="multilabel", labels="abc")
    predictor.card.recipe["data"] = {"label_separator": ";", "val_fraction": 0.0, "test_fraction": 0.0}
    found = answered(
        Neighbours([predictor], [""], str(tmp_path / "table.csv"), Turns()), encoded(20, 20, seed=1050), 20
    )
    labels = {one["name"]: one["labels"] for one in found["neighbours"]}
    assert labels["0.png"] == ["a", "b"]
    assert labels["3.png"] == []
    assert {vote["label"]: vote["share"] for vote in found["votes"]} == {"a": 0.5, "b": 0.5, "c": 0.5}
    (tmp_path / "table.csv").unlink()
    predictor.card.recipe["data"] = {}
    bare = answered(Neighbours([predictor], [""], str(tmp_path), Turns()), encoded(20, 20, seed=1050), 4)
    assert [one["labels"] for one in bare["neighbours"]] == [[]] * 4
    assert bare["votes"] == []


def test_images_that_cannot_be_read_are_left_out_and_counted(predictor, tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(encoded(20, 20, seed=1000 + i))
    (tmp_path / "cut.png").write_bytes(encoded(20, 20)[:-50])
    found = answered(Neighbours([predictor], [""], str(tmp_path), Turns()), encoded(20, 20, seed=1001))
    assert found["state"] == "ready"
    assert sorted(one["name"] for one in found["neighbours"]) == [f"{i}.png" for i in range(6)]
    assert "all 6 training images (1 image that cannot be read left out)" in found["words"]


def test_what_goes_wrong_ends_in_a_sentence_and_not_in_waiting(predictor, shapes_folder, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))

    def failing(predictor, split, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr(neighbours, "features", failing)
    found = answered(Neighbours([predictor], [""], str(shapes_folder), Turns()), encoded(20, 20, seed=101))
    assert found == {
        "state": "none",
        "why": "the index of training images could not be made; the server's terminal says more",
    }
    assert seen == [RuntimeError]


def test_an_index_that_is_being_made_ends_with_the_viewer(predictor, shapes_folder, monkeypatch):
    begun, held, sizes = threading.Event(), threading.Event(), []

    def slow(predictor, split, **options):
        sizes.append(len(split))
        begun.set()
        held.wait(PATIENCE)
        return features(predictor, split, **options)

    monkeypatch.setattr(neighbours, "features", slow)
    worker = Worker()
    made = Neighbours([predictor], [""], str(shapes_folder), worker.run)
    made.answer(0, encoded(20, 20, seed=101))
    (making,) = [thread for thread in threading.enumerate() if thread.name == "neighbours of model 0"]
    assert begun.wait(PATIENCE)
    made.close()
    worker.close()
    held.set()
    making.join(PATIENCE)
    assert not making.is_alive()
    assert sizes == [4]  # of 63 images
    assert made.indices[0].ready is None
