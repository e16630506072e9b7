"""`vitral predict FOLDER` answers as the image-classification pipeline of Transformers does, from the file to the probabilities.

The pipeline is given the processors on Pillow, which need no torchvision. Pillow 13 begins with whichever axis leaves less to do, torchvision (whose
pixels ours are) always along the rows. What lies between is rounded, so a picture that is enlarged along one axis and shrunk along the other, as
97x33.png to 64x64, has a level more or less in a quarter of its pixels; the others in less than one of a hundred. So each model is asked twice: as it
was loaded, and with Pillow's arithmetic, where nothing is left of the difference.
"""

from dataclasses import replace
from pathlib import Path

import pytest

import vitral
from vitral.data.steps import Resize
from vitral.predict import Predictor

transformers = pytest.importorskip("transformers")
PIXELS = Path(__file__).parent.parent / "pixels"
PICTURES = ("224x224.png", "51x200.png", "97x33.png", "photo.jpg")
PLAIN = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 8,
}
SQUARE = {"size": {"height": 64, "width": 64}}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
PVT = {"image_size": 64, "hidden_sizes": [16, 24, 32, 48], "num_attention_heads": [1, 2, 4, 4]}
CASES = {
    "vit": ("ViT", PLAIN, "ViT", SQUARE),
    "deit": ("DeiT", PLAIN, "DeiT", {"size": {"height": 73, "width": 73}, "crop_size": 64}),
    "beit": ("Beit", PLAIN | {"use_relative_position_bias": True}, "Beit", SQUARE | {"resample": 2}),
    "swin": ("Swin", SWIN, "ViT", SQUARE | {"resample": 3, "do_normalize": False}),
    "swinv2": ("Swinv2", SWIN, "ViT", {**SQUARE, "rescale_factor": 1 / 127.5}),
    "pvt": ("Pvt", PVT, "Pvt", SQUARE | {"resample": 2}),
    "pvt_v2": ("PvtV2", PVT, "ConvNext", {"size": {"shortest_edge": 64}, "crop_pct": 0.875}),
    "dinov2": ("Dinov2", {**PLAIN, "mlp_ratio": 2}, "Bit", {"size": {"shortest_edge": 73}, "crop_size": 64}),
    "dinov2_with_registers": (
        "Dinov2WithRegisters", {**PLAIN, "mlp_ratio": 2, "num_register_tokens": 3}, "Bit", {"size": {"shortest_edge": 72}, "crop_size": 64},
    ),
}  # fmt: skip


def as_pillow(predictor):
    """The same model, resizing in Pillow's arithmetic."""
    steps = predictor.card.preprocess
    plan = tuple(replace(step, arithmetic="pillow") if isinstance(step, Resize) else step for step in steps.plan)
    assert plan != steps.plan
    return Predictor(predictor.model, replace(predictor.card, preprocess=replace(steps, resize="steps", steps=plan)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_probabilities_are_the_pipelines(case, tmp_path):
    family, shape, processor, settings = CASES[case]
    transformers.set_seed(0)
    spread = (
        0.02 if family == "Pvt" else 0.1
    )  # with larger weights PVT's answers to 97x33.png differ by more, for its levels
    config = getattr(transformers, f"{family}Config")(
        **shape, initializer_range=spread, num_labels=4, id2label=dict(enumerate("abcd")), label2id={c: i for i, c in enumerate("abcd")}
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForImageClassification")(config).eval()
    prepare = getattr(transformers, f"{processor}ImageProcessorPil")(**settings)
    model.save_pretrained(tmp_path)
    prepare.save_pretrained(tmp_path)
    pipeline = transformers.pipeline("image-classification", model=model, image_processor=prepare)
    ours = vitral.load(tmp_path)
    for picture in PICTURES:
        theirs = {each["label"]: each["score"] for each in pipeline(str(PIXELS / picture), top_k=4)}
        for predictor, apart in ((ours, 1e-3), (as_pillow(ours), 1e-5)):
            mine = dict(predictor.predict(PIXELS / picture).top)
            both = {label: (round(theirs[label], 6), round(mine[label], 6)) for label in "abcd"}
            print(case, picture, both)  # side by side, with pytest -s
            assert all(abs(theirs[label] - mine[label]) <= apart for label in "abcd"), (picture, apart, both)
    assert max(abs(theirs[a] - theirs[b]) for a in "abcd" for b in "abcd") > 0.003  # the model tells classes apart
