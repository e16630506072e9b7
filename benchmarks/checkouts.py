"""Two checkouts of the source compared: does a change leave what is computed as it was?

    python benchmarks/checkouts.py OLD NEW [--only WORD ...] [--keep FOLDER]

OLD and NEW are folders that hold `src/vitral`. Each is run in a process of its own, on one thread, through the command line and the public
names only: each family and each objective is trained for 30 steps from one seed, and then evaluated, explained, inspected and started from.
Compared bit for bit: losses, gradient norms, the weights that training ends with, the names in the state dict, parameter counts (of every row of
the zoo, too), `evaluate --json`, and pixels after preprocessing; to 1e-6: explanations and inspections. Prints what differs, and exits with 1
if anything does. Takes about two minutes of processor time for each side. (Parity with other implementations is held by the tests.)
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Numbers = dict[str, object]
PIXELS = Path(__file__).parents[1] / "tests" / "pixels"
PICTURES = sorted(p for p in PIXELS.iterdir() if p.suffix in (".png", ".jpg"))
CLOSE = 1e-6  # of explanations and inspections; all else is equal to the bit
PLAIN = "--patch-size 8 --dim 24 --depth 2 --num-heads 2"
PYRAMID = "--dims 8 8 16 16 --depths 1 1 1 1 --num-heads 1 1 2 2"
WINDOWS = "--dim 8 --depths 2 2 --num-heads 2 2 --window 4 4"
FAMILIES = {
    "vit": f"--model vit_tiny_patch16_224 {PLAIN} --num-registers 2",
    "vit-mean": f"--model vit_tiny_patch16_224 {PLAIN} --pooling mean --fc-norm --patch-drop 0.3 --drop-path 0.2",
    "hybrid": "--model vit_tiny_r_s16_p8_224 --patch-size 8 --stages 1 --dim 24 --depth 2 --num-heads 2",
    "deit": f"--model deit_tiny_distilled_patch16_224 {PLAIN}",
    "cait": f"--model cait_xxs24_224 {PLAIN}",
    "beit": f"--model beit_base_patch16_224 {PLAIN}",
    "dino": f"--model vit_small_patch14_dinov2 {PLAIN} --image-size 40 32",
    "dino3": f"--model vit_small_patch16_dinov3 {PLAIN} --image-size 40 32",
    "swin": f"--model swin_tiny_patch4_window7_224 {WINDOWS}",
    "swinv2": f"--model swinv2_tiny_window8_256 {WINDOWS}",
    "pvt": f"--model pvt_tiny {PYRAMID}",
    "pvt_v2": f"--model pvt_v2_b0 {PYRAMID}",
    "resnet": "--model resnet18 --depths 1 1 1 1 --width 8",
}
EVERY = "digits --steps 30 --batch-size 16 --precision fp32 --device cpu --workers 0 --seed 1 --keep last"
SIZED = "--image-size 32 32 --layer-decay 0.8 --lr 1e-3"
TIMED = ("images_per_s", "wait_s", "window_s", "seconds")  # noted beside the losses, and never the same twice
TINY = "--model vit_tiny_patch16_224 --image-size 16 16 --patch-size 4 --dim 24 --depth 2 --num-heads 2"
OBJECTIVES = {
    "mae": f"{TINY} --decoder-dim 16 --decoder-depth 1 --decoder-num-heads 2",
    "patch": TINY,
    "patch-beit": f"{TINY.replace('vit_tiny_patch16_224', 'beit_base_patch16_224')}",
    "tokenizer": f"{TINY} --codes 16",
    "beit": f"{TINY.replace('vit_tiny_patch16_224', 'beit_base_patch16_224')} --tokenizer {{runs}}/pre-tokenizer",
    "dino": f"{TINY} --prototypes 16 --local-crops 1 --patch-loss 1 --hflip 0.5",
}
METHODS = ("attention", "rollout", "gradient_rollout", "relevance", "grad_cam", "legrad", "integrated_gradients", "occlusion",
           "logit_lens", "similarity", "pca")  # fmt: skip


def command(*words: object) -> str:
    """A command of this side's `vitral`, in this process; what it prints on stdout."""
    from vitral.cli import main

    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"vitral {' '.join(map(str, words))}\n{errors.getvalue()}") from stop
    return said.getvalue()


def digest(tensor: object) -> str:
    """Of the bits of a tensor or an array."""
    import torch

    array = tensor.detach().cpu().contiguous().numpy() if isinstance(tensor, torch.Tensor) else tensor
    return f"{array.dtype} {list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"


def sampled(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """About 32 rows and columns of a map, whatever the picture's size."""
    return values[:: max(1, len(values) // 32), :: max(1, values.shape[1] // 32)]


def trained(run: Path, *words: str) -> Numbers:
    """A run, and what it ends with."""
    import vitral

    command(*words, "--out", run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    model = vitral.load(run).model
    return {
        "losses": [{k: v for k, v in line.items() if k not in TIMED} for line in lines if line["event"] == "train"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": {name: digest(tensor) for name, tensor in model.state_dict().items()},
    }


def used(run: Path) -> Numbers:
    """What a trained classifier answers."""
    import torch

    import vitral

    vit = vitral.load(run)
    found: Numbers = {"evaluate": json.loads(command("evaluate", run, "digits", "--split", "test", "--json"))}
    for picture in PICTURES:
        found[f"pixels {picture.name}"] = digest(vit.preprocess(str(picture)))
    images = torch.stack([vit.preprocess(str(picture)) for picture in PICTURES])
    with torch.no_grad():
        wide = torch.cat([images, images], dim=3)  # another grid than the model's own
        for name, batch in (("square", images), ("wide", wide)):
            found[f"{name} logits"] = digest(vit.model(batch))
            found[f"{name} representation"] = digest(vit.model.represent(batch))
            found[f"{name} features"] = [digest(one) for one in vit.model.features(batch)]
    explained: Numbers = {}
    for method in METHODS:
        try:
            explanation = vit.explain(str(PICTURES[-1]), method=method)
            explained[method] = sampled(explanation.map).tolist()
        except vitral.VitralError:
            explained[method] = "refused"
    found["close explain"] = explained
    inspected = json.loads(command("inspect", run, "digits", "--images", "8", "--json", "--out", run / "inside.html"))
    inspected.pop("page")
    return found | {"close inspect": inspected}


def zoo() -> Numbers:
    """Of every row the parameters, and a digest of the names and shapes in its state dict."""
    import torch

    import vitral
    from vitral.models.zoo import MODELS

    found: Numbers = {}
    for name in MODELS:
        with torch.device("meta"):
            model = vitral.create_model(name)
        shapes = [(key, list(tensor.shape)) for key, tensor in model.state_dict().items()]
        found[name] = [sum(p.numel() for p in model.parameters()), hashlib.sha256(repr(shapes).encode()).hexdigest()]
    return found


def cases(out: Path) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Every case by name, in an order in which each finds the runs that it starts from."""
    yield "zoo", zoo

    def family(name: str, options: str) -> Numbers:
        found = trained(out / name, "train", *f"{EVERY} {SIZED} {options}".split()) | used(out / name)
        again = f"{EVERY} --steps 5 --init {out / name} --freeze embed"
        return found | {"fine-tuned": trained(out / f"{name}-again", "train", *again.split())}

    for name, options in FAMILIES.items():
        yield f"family {name}", partial(family, name, options)
    for name, options in OBJECTIVES.items():
        words = f"pretrain {EVERY} --objective {name.split('-')[0]} {options.format(runs=out)}".split()
        yield f"objective {name}", partial(trained, out / f"pre-{name}", *words)
    distilled = TINY.replace("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")
    extras = {
        "muon": f"{TINY} --optimizer muon --ema 0.9 --mixup 0.2 --cutmix 1 --policy randaugment",
        "lamb": f"{TINY} --optimizer lamb --loss bce --policy 3augment --layer-scale 0.1",
        "sgd": f"{TINY} --optimizer sgd --accumulation 2 --crop resized --erase 0.3 --gradient-checkpointing",
        "lora": f"--init {out / 'vit'} --lora-rank 2",
        "after mae": f"--init {out / 'pre-mae'} --layer-decay 0.7",
        "soft": f"{TINY} --teacher {out / 'resnet'} --distillation soft",
        "hard": f"{distilled} --teacher {out / 'resnet'}",
    }
    for name, options in extras.items():
        folder = out / f"extra-{name.replace(' ', '-')}"
        yield f"extra {name}", partial(trained, folder, "train", *f"{EVERY} {options}".split())


def measure(out: Path, only: list[str]) -> None:
    """Write this side's numbers case by case; of a case that fails, its error."""
    for name, case in cases(out / "runs"):
        if only and not any(word in name for word in only):
            continue
        print(f"  {name}", file=sys.stderr, flush=True)
        try:
            numbers = case()
        except Exception as error:
            numbers = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        path = out / "cases" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(numbers))


def differences(old: object, new: object, where: str, close: bool) -> Iterator[str]:
    """A line for each place where two nested values differ."""
    close = close or "close " in where
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                yield f"{where} / {key}: only in {'the new' if key in new else 'the old'}"
            else:
                yield from differences(old[key], new[key], f"{where} / {key}", close)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{where} / {i}", close)
    elif close and isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=CLOSE, abs_tol=CLOSE):
            yield f"{where}: {old!r} -> {new!r}"
    elif old != new:
        yield f"{where}: {str(old)[:90]!r} -> {str(new)[:90]!r}"


def side(checkout: Path, out: Path, only: list[str], known: bool = False) -> dict[str, Numbers]:
    """The numbers of one checkout by case, found in a process of its own; with `known` those that are there are read."""
    if not (known and (out / "cases").exists()):
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src"), "OMP_NUM_THREADS": "1"}
        out.mkdir(parents=True, exist_ok=True)
        print(checkout, file=sys.stderr, flush=True)
        words = [sys.executable, __file__, "--measure", str(out.resolve()), "--only", *only]
        if subprocess.run(words, env=environment, cwd=out).returncode:
            sys.exit(f"{checkout}: could not be measured")
    return {path.stem: json.loads(path.read_text()) for path in sorted((out / "cases").iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="OLD NEW")
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="WORD",
        help="cases whose name holds one of these; an extra starts from the runs of others",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep OLD's numbers here, and read those that are there"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        return measure(given.measure, given.only)
    if len(given.checkouts) != 2:
        parser.error("give the old and the new checkout")
    with tempfile.TemporaryDirectory() as scratch:
        folder, (old, new) = Path(scratch), given.checkouts
        before = side(old, (given.keep or folder) / "old", given.only, known=True)
        after = side(new, folder / "new", given.only)
    failed = [f"{name}: {numbers['failed']}" for name, numbers in after.items() if "failed" in numbers]
    found = failed + list(differences({name: before.get(name) for name in after}, after, "", close=False))
    print("\n".join(found[:100]) or f"{len(after)} cases are equal")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
