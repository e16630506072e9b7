"""The data of a run are found again, as they were, or it is said why not."""

import json
import shutil

import pytest

from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.seen import write_held
from vitral.training.reopen import data_of_run
from vitral.training.toml import read_recipe


def test_the_data_are_those_of_the_run(shapes_run, shapes_folder):
    wanted = open_data(shapes_folder, DataOptions())
    for model in (shapes_run, shapes_run / "model.safetensors"):
        found = data_of_run(model)
        assert found.fingerprint == wanted.fingerprint
        assert {name: list(split.names) for name, split in found.splits.items()} == {
            name: list(split.names) for name, split in wanted.splits.items()
        }


def test_a_model_without_its_run_has_none(shapes_run, tmp_path):
    shutil.copy(shapes_run / "model.safetensors", tmp_path)
    assert data_of_run(tmp_path / "model.safetensors") is None


def test_changed_or_garbled_is_refused(shapes_run, shapes_folder, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(shapes_folder, data)
    run.mkdir()
    shutil.copy(shapes_run / "recipe.toml", run)
    described = json.loads((shapes_run / "run.json").read_text()) | {"data": str(data)}
    (run / "run.json").write_text(json.dumps(described))
    assert data_of_run(run).fingerprint == described["fingerprint"]
    (data / "disc" / "00.png").unlink()
    with pytest.raises(VitralError, match="changed since the run"):
        data_of_run(run)
    shutil.rmtree(data)
    with pytest.raises(VitralError, match="there is no such folder"):
        data_of_run(run)
    (run / "run.json").write_text("{")
    with pytest.raises(VitralError, match=r"run\.json: cannot be read"):
        data_of_run(run)


def test_a_run_keeps_the_splits_that_it_was_begun_with(shapes_run, shapes_folder, tmp_path):
    begun = open_data(shapes_folder, DataOptions(val_fraction=0.3))  # as another version might have made them
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(shapes_run / "recipe.toml", run)
    (run / "run.json").write_text(json.dumps({"data": str(shapes_folder), "fingerprint": begun.fingerprint}))
    with pytest.raises(VitralError, match="changed since the run"):
        data_of_run(run)
    write_held(run, begun)
    assert data_of_run(run).fingerprint == begun.fingerprint
    (run / "held-out.npz").write_bytes(b"PK")
    with pytest.raises(VitralError, match=r"held-out\.npz: cannot be read"):
        data_of_run(run)


def test_runs_from_before_near_copies_were_sought_keep_their_splits(shapes_run, tmp_path):
    recipe = (shapes_run / "recipe.toml").read_text()
    assert 'near_copies = "together"' in recipe
    older = tmp_path / "recipe.toml"
    older.write_text(recipe.replace('near_copies = "together"\n', ""))
    assert read_recipe(older, stored=True).data.near_copies == "apart"
    assert read_recipe(older).data.near_copies == "together"
