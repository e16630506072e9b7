"""Weights of other libraries for dense tasks: answers equal to theirs, and back under their names."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import reference
import vitral
from families import small
from vitral.answers.objects import detections
from vitral.checkpoints.convert import to_layout
from vitral.checkpoints.create import open_model
from vitral.checkpoints.exchange import exchange
from vitral.checkpoints.processors import read_processor
from vitral.checkpoints.to_transformers import transformers_config
from vitral.errors import VitralError
from vitral.models.eomt import boxes_around
from vitral.models.heads.options import LinearOptions, NoHead, SegformerOptions
from vitral.models.yolos import log_odds
from vitral.models.zoo import model_config
from vitral.training.config import Recipe
from vitral.training.defaults import settle_head
from vitral.training.options import ModelOptions
from vitral.training.shape import open_config
from vitral.training.toml import merge, read_recipe, to_toml

NAMES = reference.names("transformers-dense")


def opened(name, tmp_path, processor=None):
    folder = reference.transformers_folder(name, tmp_path / "theirs")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder, open_model(folder)


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_back_under_their_names_old_and_new(name, tmp_path):
    folder, found = opened(name, tmp_path)
    assert found.report.complete
    exchange(str(folder), tmp_path / "ours", "hf")
    back, theirs = load_file(tmp_path / "ours" / "model.safetensors"), reference.state_dict(name)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs if not key.endswith("num_batches_tracked"))
    spec, written = reference.spec(name), json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["id2label"] == spec["hf_config"]["id2label"]
    wanted = {key: value for key, value in spec["hf_config"].items() if key in written and key != "label2id"}
    assert {key: written[key] for key in wanted} == wanted
    assert {key: str(written[key]) for key in wanted} == {
        key: str(value) for key, value in wanted.items()
    }  # 4, not 4.0
    assert to_layout(found.model, "hf5").keys() | set(found.report.left_out) >= set(spec["keys5"])
    exchange(str(folder), tmp_path / "ours.safetensors")  # and our own file, compared as it is read back


def test_whole_numbers_stay_whole_by_way_of_our_own_file(tmp_path):
    folder, _ = opened("hf_segformer", tmp_path)
    exchange(str(folder), tmp_path / "ours.safetensors")
    exchange(str(tmp_path / "ours.safetensors"), tmp_path / "back", "hf")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert str(written["mlp_ratios"]) == "[4, 4, 4, 4]"


def test_a_yolos_finds_what_transformers_finds(tmp_path):
    """On images that its positions are resized for and its patches do not tile; of five ids two are of no class."""
    _, found = opened("hf_yolos", tmp_path)
    model, answers = found.model.eval(), reference.answers("hf_yolos")
    images = reference.images("hf_yolos")
    assert (found.labels, found.task, model.config.gaps) == (["person", "bicycle", "car"], "detect", (0, 3))
    with torch.inference_mode():
        tokens = model.encode(model.embed(images), model.grid_of(images))
        detections = tokens[:, 1 : model.num_prefix]
        scores = model.head.scores(detections)
        boxes, seen = model(images).boxes, model(images).logits
    assert reference.difference(scores, answers["logits"]) <= 1e-5
    assert reference.difference(detections, answers["last_hidden_state"][:, -5:]) <= 1e-5
    theirs = torch.from_numpy(answers["pred_boxes"])  # centre, width and height
    corners = torch.cat([theirs[..., :2] - theirs[..., 2:] / 2, theirs[..., :2] + theirs[..., 2:] / 2], -1)
    assert reference.difference(boxes, corners.numpy()) <= 1e-5
    shares = torch.from_numpy(answers["logits"]).softmax(-1)[..., [1, 2, 4]]
    assert torch.allclose(seen.sigmoid(), shares, atol=1e-6)


def test_a_segformer_answers_as_transformers_does(tmp_path):
    _, found = opened("hf_segformer", tmp_path)
    with torch.inference_mode():
        answer = found.model.eval()(reference.images("hf_segformer"))
    assert reference.difference(answer.logits, reference.answers("hf_segformer")["logits"]) <= 1e-5
    assert (found.task, found.labels) == ("semantic", ["wall", "sky", "tree", "road", "car"])


def test_a_segformer_in_a_folder_predicts_a_map(tmp_path):
    folder, _ = opened(
        "hf_segformer",
        tmp_path,
        {"image_processor_type": "SegformerImageProcessor", "size": {"height": 64, "width": 96}},
    )
    answer = vitral.load(folder).predict(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    assert answer.map.shape == (50, 70)
    assert answer.labels == ["wall", "sky", "tree", "road", "car"]


def test_a_segformers_encoder_is_read_alone_and_with_a_classifier(tmp_path):
    """As nvidia/mit-b0 has it: the encoder and a linear classifier of the mean."""
    spec, tensors = reference.spec("hf_segformer"), reference.state_dict("hf_segformer")
    encoder = {key: tensor for key, tensor in tensors.items() if not key.startswith("decode_head")}
    classifier = {"classifier.weight": torch.randn(5, 40), "classifier.bias": torch.randn(5)}
    for name, more in (("alone", {}), ("classifier", classifier)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(spec["hf_config"]))
        save_file(encoder | more, folder / "model.safetensors", {"format": "pt"})
        found = open_model(folder)
        assert found.report.complete
        assert (found.model.num_classes, found.task) == (len(more) and 5, "classify")
    images = reference.images("hf_segformer")
    with torch.inference_mode():
        found.model.eval()
        mean = found.model.features(images)[-1].mean((1, 2))
        assert torch.allclose(
            found.model(images), mean @ classifier["classifier.weight"].T + classifier["classifier.bias"], atol=1e-5
        )


def test_a_segformer_of_ours_that_transformers_has_not(tmp_path):
    _, found = opened("hf_segformer", tmp_path)
    with pytest.raises(VitralError, match="batch_norm: differs from SegFormer's in Transformers"):
        transformers_config(found.model.config, SegformerOptions(20))
    with pytest.raises(VitralError, match="a linear head on a PvtV2: Transformers has no such model"):
        transformers_config(found.model.config, LinearOptions())


def test_a_beit_with_a_head_for_maps_says_what_it_is(tmp_path):
    folder = reference.transformers_folder("hf_beit", tmp_path / "theirs")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"decode_head.classifier.bias": torch.zeros(5)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(VitralError, match=r"a BEiT with UPerNet's head cannot be built; of models with maps SegFormer"):
        open_model(folder)


EOMT = {"image_processor_type": "EomtImageProcessor", "do_pad": True, "size": {"shortest_edge": 32, "longest_edge": 32}}


def test_an_eomt_finds_what_transformers_finds(tmp_path):
    _, found = opened("hf_eomt", tmp_path)
    model, answers = found.model.eval(), reference.answers("hf_eomt")
    images = reference.images("hf_eomt")
    with torch.inference_mode():
        tokens = model.encode(model.embed(images), model.grid_of(images))
        scores = model.head.scores(tokens[:, :5])
        seen = model(images)
    assert reference.difference(scores, answers["class_queries_logits"]) <= 1e-5
    assert reference.difference(seen.masks, answers["masks_queries_logits"]) <= 1e-5
    assert torch.allclose(
        seen.logits.sigmoid(), torch.from_numpy(answers["class_queries_logits"]).softmax(-1)[..., :-1], atol=1e-6
    )
    assert (found.task, found.labels) == ("instance", ["cat", "dog", "sky", "road"])


@pytest.mark.parametrize("name", ["hf_yolos", "hf_eomt"])
def test_a_folder_of_a_detector_predicts_objects_of_the_original(name, tmp_path):
    """The best pair of an answer and a class, its box on the image of 50 x 70 pixels, which an EoMT gets in the upper part of its square."""
    folder, found = opened(name, tmp_path, YOLOS | {"size": 40, "max_size": 80} if name == "hf_yolos" else EOMT)
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    vit = vitral.load(folder)
    seen, placed = vit.outputs(vit.preprocess(image)[None]), vit.placed(vit.decode(image))
    shares = seen.logits[0].sigmoid()
    query, label = divmod(int(shares.argmax()), shares.shape[1])
    best = detections(seen, [placed])[0]
    assert (best.classes[0], best.scores[0]) == (label, pytest.approx(float(shares.max()), abs=1e-6))
    down = 1.0 if name == "hf_yolos" else 32 / 22  # 50 x 70 becomes 22 x 32 of 32 x 32
    wanted = (seen.boxes[0, query] * torch.tensor([70, 50 * down, 70, 50 * down])).clamp(
        max=torch.tensor([70, 50, 70, 50])
    )
    assert np.allclose(best.boxes[0], wanted, atol=1e-3)
    assert (best.masks is None) == (name == "hf_yolos")
    answer = vit.predict(image)
    assert (answer.height, answer.width) == (50, 70)
    assert {each.label for each in answer.objects} <= set(found.labels)


def test_boxes_are_around_masks():
    masks = torch.full((1, 2, 4, 8), -1.0)
    masks[0, 0, 1:3, 2:5] = 1.0
    assert boxes_around(masks).tolist() == [[[0.25, 0.25, 0.625, 0.75], [0.0] * 4]]


def test_an_eomt_at_another_size_and_in_the_middle_of_its_training(tmp_path):
    folder, found = opened("hf_eomt", tmp_path)
    masks = found.model.eval()(torch.randn(1, 3, 24, 40)).masks
    assert masks.shape == (1, 5, 6, 10)
    tensors = reference.state_dict("hf_eomt") | {"attn_mask_probs": torch.ones(2)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(VitralError, match="attn_mask_probs is not 0: an EoMT that still masks its attention"):
        open_model(folder)


def test_from_our_own_file_an_eomt_is_written_with_its_buffers(tmp_path):
    folder, _ = opened("hf_eomt", tmp_path, EOMT)
    exchange(str(folder), tmp_path / "ours.safetensors")
    exchange(str(tmp_path / "ours.safetensors"), tmp_path / "back", "hf")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == reference.state_dict("hf_eomt").keys()
    assert not back["attn_mask_probs"].any()
    assert torch.equal(back["criterion.empty_weight"], torch.tensor([1, 1, 1, 1, 0.1]))


def test_images_for_an_eomt_are_padded_with_black(tmp_path):
    folder, found = opened("hf_eomt", tmp_path, EOMT)
    view = found.preprocess.view(torch.full((3, 40, 20), 255, dtype=torch.uint8))
    assert view.shape == (3, 32, 32)
    assert (view[:, :, :16] == 255).all()
    assert not view[:, :, 16:].any()
    exchange(str(folder), tmp_path / "ours", "hf")
    assert open_model(tmp_path / "ours").preprocess == found.preprocess
    with pytest.raises(VitralError, match="do_split_image: images that are read in several parts"):
        read_processor(EOMT | {"do_split_image": True}, "eomt", 3, (32, 32), 8)


def test_log_odds_are_the_softmax_in_a_sigmoid_even_where_it_is_sure():
    logits = torch.tensor([[0.0, 1.0, -2.0], [90.0, 0.0, -90.0]])
    odds = log_odds(logits)
    assert torch.allclose(odds.sigmoid(), logits.softmax(-1), atol=1e-7)
    assert torch.allclose(odds[1], torch.tensor([90.0, -90.0, -180.0]))


YOLOS = {
    "feature_extractor_type": "YolosFeatureExtractor", "do_normalize": True, "do_resize": True, "format": "coco_detection",
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "max_size": 1333, "size": 800,
}  # fmt: skip


@pytest.mark.parametrize(
    ("image", "settings", "size"),  # as Transformers' get_size_with_aspect_ratio_yolos answers
    [
        ((480, 640), {}, (800, 1056)), ((333, 500), {}, (800, 1200)), ((1000, 300), {}, (1328, 400)), ((1333, 800), {}, (1328, 800)),
        ((512, 512), {"size": {"shortest_edge": 512, "longest_edge": 864}, "max_size": None}, (512, 512)),
        ((427, 640), {"size": {"shortest_edge": 512, "longest_edge": 864}, "max_size": None}, (512, 752)),
    ],
)  # fmt: skip
def test_images_for_a_yolos_have_whole_patches(image, settings, size, tmp_path):
    steps = read_processor(YOLOS | settings, "yolos", 3, (512, 864), 16)
    assert steps(torch.zeros(3, *image, dtype=torch.uint8)).shape[1:] == size
    folder, found = opened("hf_yolos", tmp_path, YOLOS | settings)
    exchange(str(folder), tmp_path / "ours", "hf")
    assert open_model(tmp_path / "ours").preprocess == found.preprocess


@pytest.mark.parametrize("family", ["yolos", "eomt"])
def test_a_recipe_that_starts_from_a_detector_comes_back_from_its_file(family, tmp_path):
    config = small(family).config
    arguments = {
        name: value for name, value in config.arguments().items() if name not in ("in_channels", "num_classes")
    }
    recipe = merge(Recipe(), {"model": {"name": family, **arguments}}, "here")
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    assert open_config(recipe, in_channels=3, num_classes=4) == config


def test_a_yolos_is_not_trained_to_classify():
    with pytest.raises(VitralError, match="model yolos: its head finds objects, and the task is classify"):
        settle_head(NoHead(), ModelOptions("yolos"), "classify", [])


def test_gaps_are_among_the_outputs():
    with pytest.raises(VitralError, match=r"gaps=\(7,\): must be different numbers from 0 to 4"):
        model_config("yolos", num_classes=4, gaps=(7,))


def test_a_yolos_at_many_sizes():
    model = small("yolos", image_size=(32, 48))
    for size in ((8, 8), (40, 24), (37, 61)):
        found = model(torch.randn(2, 3, *size))
        assert found.logits.shape == (2, 3, 4)
        assert found.boxes.shape == (2, 3, 4)
        maps = model.features(torch.randn(2, 3, *size))
        assert {each.shape[1:3] for each in maps} == {(size[0] // 8, size[1] // 8)}
    with pytest.raises(VitralError, match="smaller than one patch"):
        model(torch.randn(1, 3, 7, 32))
    assert len(model.prefix_names) == model.num_prefix == 4
    assert model.layer_numbers()["mid_pos_embed"] == 1
    assert small("eomt", depth=3).layer_numbers()["query"] == 2
    assert model.position_vectors()["pos_embed"][0].shape == (24, 24)
