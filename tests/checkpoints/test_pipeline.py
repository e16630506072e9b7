"""`vitral predict FOLDER` answers as the image-classification pipeline of Transformers does, from the file to the probabilities.

The pipeline is given the processors on Pillow, which need no torchvision. They differ from those on torchvision, whose pixels ours are, by a
level here and there, and by the side of the odd pixel of padding.
"""

from pathlib import Path

import pytest

import vitral

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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_probabilities_are_the_pipelines(case, tmp_path):
    family, shape, processor, settings = CASES[case]
    transformers.set_seed(0)
    spread = 0.02 if family == "Pvt" else 0.1  # PVT's answers depend on single levels where its weights are larger
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
        mine = dict(ours.predict(PIXELS / picture).top)
        both = {label: (round(theirs[label], 5), round(mine[label], 5)) for label in "abcd"}
        print(case, picture, both)  # side by side, with pytest -s
        assert all(abs(a - b) <= 1e-3 for a, b in both.values()), both
    assert max(abs(theirs[a] - theirs[b]) for a in "abcd" for b in "abcd") > 0.003  # the model tells classes apart
