"""Weights of other libraries: numerical parity with what they answer, round trips, and a clear refusal of what does not fit."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import reference
import vitral
from families import small
from vitral.checkpoints.convert import adapt_channels, load_weights, to_layout
from vitral.checkpoints.create import open_model
from vitral.checkpoints.exchange import change, exchange
from vitral.checkpoints.layouts import layouts_of
from vitral.errors import VitralError
from vitral.layers.position import RESIZES, resize_bias_table, resize_positions
from vitral.models.shapes import shapes_only
from vitral.models.zoo import FAMILIES, MODELS, build

TIMM = reference.names("timm")
TRANSFORMERS = reference.names("transformers")
MAE = "hf_vit_mae_pretraining"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", TIMM)
def test_parity_with_timm_and_back(name):
    theirs = reference.state_dict(name)
    model = vitral.create_model(reference.spec(name)["name"], weights=theirs).eval()
    with torch.inference_mode():
        assert reference.difference(model(reference.images(name)), reference.answers(name)["logits"]) <= 1e-5
    back = {k: t for k, t in to_layout(model, "timm").items() if not k.endswith("num_batches_tracked")}
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[k], theirs[k]) for k in theirs)


@pytest.mark.parametrize("name", [n for n in TRANSFORMERS if n != MAE])
def test_parity_with_transformers_and_back(name, tmp_path):
    folder = reference.transformers_folder(name, tmp_path / "theirs")
    opened = open_model(folder)
    answers = reference.answers(name)
    with torch.inference_mode():
        logits, attention = opened.model.eval().forward_with_attention(reference.images(name))
    assert reference.difference(logits, answers["logits"]) <= 1e-5
    for key, layer in (("attention_first", 0), ("attention_last", -1)):
        if key in answers:
            assert reference.difference(attention[layer], answers[key]) <= 1e-5
    assert opened.report.complete
    assert opened.report.loaded == opened.report.total
    exchange(str(folder), tmp_path / "ours", "hf")
    back, theirs = load_file(tmp_path / "ours" / "model.safetensors"), reference.state_dict(name)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[k], theirs[k]) for k in theirs)


def test_parity_of_a_masked_autoencoder(tmp_path):
    model = vitral.create_model(reference.transformers_folder(MAE, tmp_path / "theirs")).eval()
    answers = reference.answers(MAE)
    noise = np.random.default_rng(7).random(answers["mask"].shape, dtype=np.float32)
    with torch.inference_mode():
        ours = model(reference.images(MAE), noise=torch.from_numpy(noise))
    for key in answers:
        assert reference.difference(getattr(ours, key), answers[key]) <= 1e-5
    assert np.array_equal(ours.mask.numpy(), answers["mask"])
    back, theirs = to_layout(model, "hf5"), reference.state_dict(MAE)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[k], theirs[k]) for k in theirs)


def test_parity_of_googles_npz(tmp_path):
    path = tmp_path / "vit.npz"
    np.savez(path, **reference.google_arrays("google_npz_vit"))
    model = vitral.create_model(path).eval()  # its shape is read off the arrays
    with torch.inference_mode():
        logits = model(reference.images("google_npz_vit"))
    assert reference.difference(logits, reference.answers("google_npz_vit")["logits"]) <= 1e-5
    named = vitral.create_model("vit", image_size=64, dim=96, depth=2, num_heads=3, num_classes=10, weights=path).eval()
    assert change(model, named) == 0


def as_google(model) -> dict[str, np.ndarray]:
    """A model's weights as Google's code stores them, written from its side: [h, w, in, out], [D, H, d], [H, d, D], [in, out]."""
    layout = next(each for each in layouts_of(model) if each.name == "google")
    heads, arrays = model.config.num_heads, {}
    for key, tensor in model.state_dict().items():
        names = layout.theirs(key)
        for name, part in zip(names, tensor.chunk(len(names)), strict=True):
            t = part.numpy()
            if name.endswith("/kernel") and t.ndim == 4:
                t = t.transpose(2, 3, 1, 0)
            elif "/out/kernel" in name:
                t = t.T.reshape(heads, -1, t.shape[0])
            elif name.endswith(("query/kernel", "key/kernel", "value/kernel")):
                t = t.T.reshape(t.shape[1], heads, -1)
            elif name.endswith(("query/bias", "key/bias", "value/bias")):
                t = t.reshape(heads, -1)
            elif name.endswith("/kernel"):
                t = t.T
            elif "/gn" in name or name.startswith("gn"):
                t = t.reshape(1, 1, 1, -1)
            arrays[name] = t
    return arrays


@pytest.mark.parametrize("options", [{}, {"stages": (), "patch_size": 8}, {"stages": (2, 1), "representation_dim": 8}])
def test_googles_hybrids_are_recognised_by_their_arrays(tmp_path, options):
    model = small("hybrid", image_size=64, **options)
    arrays = as_google(model)
    assert "conv_root/kernel" in arrays
    np.savez(tmp_path / "hybrid.npz", **arrays)
    opened = open_model(tmp_path / "hybrid.npz")
    assert opened.report.complete
    assert (opened.model.config.stages, opened.model.patch_size) == (model.config.stages, model.patch_size)
    assert change(model, opened.model.eval()) == 0


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "tokenizer"])
def test_every_layout_of_every_family_is_read_as_it_is_written(family):
    model = small(family)
    written = {layout.name for layout in layouts_of(model)} - {"google"}
    for name in written - {"hf5-saved"}:
        try:
            tensors = to_layout(model, name)
        except VitralError:
            continue  # a layout of another member of the family
        fresh = small(family)
        report = load_weights(fresh, tensors)
        assert report.loaded == report.total, (name, report)
        assert change(model, fresh) == 0


def test_what_people_wrap_around_a_state_dict(tmp_path):
    model = small("deit")
    state = model.state_dict()
    for wrapped in (
        {"model": state},
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
        {"teacher": {**{f"backbone.{k}": v for k, v in state.items()}, "head.mlp.0.weight": torch.zeros(3, 3)}},
        {"model": state, "optimizer": {"lr": 0.1}, "scaler": None},
    ):
        torch.save(wrapped, tmp_path / "checkpoint.pth")
        fresh = small("deit")
        report = load_weights(fresh, tmp_path / "checkpoint.pth", allow_pickle=True)
        assert report.loaded == report.total
        assert change(model, fresh) == 0


@pytest.mark.parametrize("mode", RESIZES)
@pytest.mark.parametrize("new", [(4, 4), (6, 6), (3, 5), (8, 2)])
def test_positions_are_resized_by_the_named_rule_and_the_prefix_kept(mode, new):
    table = torch.randn(1, 2 + 16, 6)
    resized = resize_positions(table, (4, 4), new, mode, prefix=2)
    assert resized.shape == (1, 2 + new[0] * new[1], 6)
    assert torch.equal(resized[:, :2], table[:, :2])
    if new == (4, 4):
        assert torch.equal(resized, table)
    grid = table[:, 2:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    if mode == "jax" and new != (4, 4):  # scipy.ndimage.zoom of order 1: corners stay where they are
        corners = resized[0, 2:].unflatten(0, new)[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert torch.allclose(corners, grid[0][:, [0, 0, -1, -1], [0, -1, 0, -1]].T, atol=1e-6)


def test_the_rules_differ_as_the_libraries_do():
    table = torch.randn(1, 14 * 14, 8)
    results = {mode: resize_positions(table, (14, 14), (24, 24), mode) for mode in RESIZES}
    for mode in RESIZES:
        apart = (results[mode] - results["timm"]).norm() / results["timm"].norm()
        assert apart == 0 if mode == "timm" else 0.001 < apart < 1


def test_bias_tables_keep_their_extra_rows():
    table = torch.randn(7 * 7 + 3, 4)
    resized = resize_bias_table(table, (4, 4), (6, 5))
    assert resized.shape == (11 * 9 + 3, 4)
    assert torch.equal(resized[-3:], table[-3:])
    assert torch.equal(resize_bias_table(table, (4, 4), (4, 4)), table)


@pytest.mark.parametrize("family", ["vit", "deit", "cait", "beit", "dino", "pvt"])
def test_weights_go_to_another_size_and_say_so(family):
    source, target = small(family), small(family, image_size=48)
    report = load_weights(target, source.state_dict())
    assert report.loaded == report.total
    assert any("6x6" in note or "12x12" in note for note in report.notes), report.notes


def test_swin_goes_to_another_window():
    source, target = small("swin"), small("swin", window=2)
    report = load_weights(target, source.state_dict())
    assert report.loaded == report.total
    assert "relative bias 4x4 to 2x2, bicubic" in str(report)


def test_channels_are_adapted_and_said():
    weight = torch.randn(5, 3, 2, 2)
    assert torch.allclose(adapt_channels(weight, 1), weight.sum(1, keepdim=True))
    grey = torch.randn(1, 1, 2, 2).expand(1, 6, 2, 2)  # the same in every channel gives the same sum
    assert torch.allclose((adapt_channels(weight, 6) * grey).sum(), (weight * grey[:, :3]).sum(), atol=1e-5)
    target = small("vit", in_channels=1)
    report = load_weights(target, small("vit").state_dict())
    assert report.notes == ["patch_embed.proj.weight: from 3 channels to 1"]


def test_a_new_head_is_made_only_when_asked():
    source, target = small("vit"), small("vit", num_classes=9)
    before = target.head.weight.clone()
    with pytest.raises(VitralError, match="new_head=True"):
        load_weights(target, source.state_dict())
    assert torch.equal(target.head.weight, before)
    report = load_weights(target, source.state_dict(), new_head=True)
    assert torch.equal(target.head.weight, before)
    assert "a new head of 9 classes stays" in str(report)
    assert report.complete
    headless = load_weights(small("vit"), small("vit", num_classes=0).state_dict(), new_head=True)
    assert headless.complete
    with pytest.warns(UserWarning, match="a new head of 9 classes"):
        vitral.create_model("vit", source.state_dict(), new_head=True, **target.config.arguments())


def test_other_weights_are_refused_with_both_sides():
    with pytest.raises(VitralError) as error:
        load_weights(small("vit", dim=48), small("vit").state_dict())
    message = str(error.value)
    assert "1 of 32 tensors" in message
    assert "of another shape (file, model)" in message
    assert "(24, 24), (48, 48)" in message
    with pytest.raises(VitralError, match="2 only in the file") as error:
        load_weights(
            small("vit"), {**small("vit").state_dict(), "odd.weight": torch.zeros(2), "odd.bias": torch.zeros(2)}
        )
    with pytest.raises(VitralError, match="none of its 1 tensors belongs to a VisionTransformer"):
        load_weights(small("vit"), {"lstm.weight": torch.zeros(2)})


class Bomb:
    def __reduce__(self):
        return print, ("code from a pickle ran",)


def test_pickles_are_refused_and_their_code_never_runs(tmp_path, capsys):
    model = small("vit")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(VitralError, match="allow_pickle=True"):
        load_weights(model, tmp_path / "weights.pth")
    assert load_weights(model, tmp_path / "weights.pth", allow_pickle=True).complete
    (tmp_path / "renamed.safetensors").write_bytes((tmp_path / "weights.pth").read_bytes())
    with pytest.raises(VitralError, match="pickle"):
        load_weights(model, tmp_path / "renamed.safetensors")
    torch.save({"model": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pth", "plain.pkl"):
        with pytest.raises(VitralError, match=name):
            load_weights(model, tmp_path / name, allow_pickle=True)
    (tmp_path / "short.pth").write_bytes((tmp_path / "weights.pth").read_bytes()[:-500])
    with pytest.raises(VitralError, match="cut short or damaged"):
        load_weights(model, tmp_path / "short.pth", allow_pickle=True)
    assert "code from a pickle ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"<!DOCTYPE html><html>404</html>", "web page"), (b"not weights at all" * 9, "is not a")],
)
def test_what_is_no_weights_is_named_for_what_it_is(tmp_path, suffix, content, message):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(VitralError, match=message):
        load_weights(small("vit"), path)


def test_truncated_files(tmp_path):
    save_file(small("vit").state_dict(), tmp_path / "whole.safetensors")
    np.savez(tmp_path / "whole.npz", **reference.google_arrays("google_npz_vit"))
    for name in ("whole.safetensors", "whole.npz"):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes((tmp_path / name).read_bytes()[:-100])
        with pytest.raises(VitralError, match="is cut short or damaged"):
            load_weights(small("vit"), cut)


def test_folders_of_transformers_bring_labels_and_preprocessing(tmp_path):
    config = {
        "model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 96, "layer_norm_eps": 1e-12, "id2label": {"0": "ant", "1": "bee", "2": "cat", "3": "dog"},
    }  # fmt: skip
    processor = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 2,
    }
    model = small("vit", norm_eps=1e-12)
    save_file(to_layout(model, "hf"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    opened = open_model(tmp_path)
    assert opened.labels == ["ant", "bee", "cat", "dog"]
    assert (opened.preprocess.height, opened.preprocess.mean, opened.preprocess.resize) == (
        32,
        (0.1, 0.2, 0.3),
        "squash",
    )
    assert opened.preprocess.interpolation == "bilinear"
    done = exchange(str(tmp_path), tmp_path / "ours.safetensors")
    assert "44 of 44" in str(done.report) or done.report.loaded == done.report.total
    predictor = vitral.load(tmp_path / "ours.safetensors")
    assert predictor.labels == ["ant", "bee", "cat", "dog"]
    assert change(predictor.model, model) == 0
    exchange(str(tmp_path / "ours.safetensors"), tmp_path / "again", "hf")
    assert vitral.load(tmp_path / "again").labels == predictor.labels  # a folder of theirs predicts as it is
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    assert vitral.load(tmp_path / "again").predict(image) == predictor.predict(image)
    again = open_model(tmp_path / "again")
    assert (again.labels, again.preprocess) == (opened.labels, opened.preprocess)
    for broken, message in (("{", "JSON"), ('{"model_type": "bert"}', "'bert'"), ('{"model_type": "vit"}', "lacks")):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(VitralError, match=message):
            vitral.load(tmp_path)


def test_folders_of_timm_are_read_as_they_are_written(tmp_path):
    model = vitral.create_model("vit_tiny_patch16_224", image_size=(32, 64), num_classes=3, in_channels=1).eval()
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(VitralError, match="--model"):
        exchange(str(tmp_path / "bare.safetensors"), tmp_path / "timm", "timm")
    exchange(
        str(tmp_path / "bare.safetensors"), tmp_path / "timm", "timm", "vit_tiny_patch16_224", ["a", "b", "c"],
        image_size=(32, 64), in_channels=1,
    )  # fmt: skip
    opened = open_model(tmp_path / "timm")
    assert opened.architecture == "vit_tiny_patch16_224"
    assert opened.labels == ["a", "b", "c"]
    assert opened.model.config == model.config
    assert change(opened.model.eval(), model) == 0


def test_nothing_predicts_without_labels(tmp_path):
    np.savez(tmp_path / "vit.npz", **reference.google_arrays("google_npz_vit"))
    with pytest.raises(VitralError, match="--labels"):
        exchange(str(tmp_path / "vit.npz"), tmp_path / "out.safetensors")
    with pytest.raises(VitralError, match="3 labels for 10 classes"):
        exchange(str(tmp_path / "vit.npz"), tmp_path / "out.safetensors", labels=["a", "b", "c"])
    done = exchange(str(tmp_path / "vit.npz"), tmp_path / "out.safetensors", labels=[f"class {i}" for i in range(10)])
    assert "assumed" in done.says
    assert vitral.load(tmp_path / "out.safetensors").card.preprocess.mean == (0.5, 0.5, 0.5)


def test_a_name_of_the_hub_without_the_network_is_a_clear_error(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(VitralError, match="not in the local cache"):
        vitral.create_model("hf:vitral-tests/nothing-here")
    with pytest.raises(VitralError, match="hf:organisation/name"):
        vitral.create_model("hf:too/many/parts")


def test_every_name_of_the_zoo_has_layouts():
    with shapes_only():
        assert all(layouts_of(build(FAMILIES[family][0]())) for family in {entry.family for entry in MODELS.values()})
