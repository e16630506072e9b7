"""What `vitral optimize` chooses beside eager PyTorch, Transformers, ONNX Runtime and OpenVINO at their best settings, on the same weights.

    python benchmarks/engines.py [--models ViT-Ti ViT-S ViT-B Swin-T] [--rounds 7]       # needs transformers

Transformers makes random weights, and `vitral.load` reads its folder. `optimize` chooses by batches of 1 and of 8: in float32, and in any precision.
Then the choices and all others take turns in one process, in another order each round, each after a quarter of a second of batches that do not count
(threads of the one before spin for a while): ratios are medians over the rounds of theirs / ours in seconds. Best settings: ONNX Runtime with and
without spinning threads, and with its optimiser for ViTs; OpenVINO for latency, and with a stream a core. The share is that of what torch's matrix
products reach in the same rounds. Answers: the largest difference of a probability from eager PyTorch's in float32. On one core (`taskset -c 1`)
times are the processor's, which other processes' work does not lengthen.
"""

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers as hf
from PIL import Image
from sklearn.datasets import load_sample_images

from vitral.checkpoints.bundle import save_model
from vitral.data.sources import open_data
from vitral.deploy.export.formats import export
from vitral.deploy.fastest.optimise import Optimised, optimise
from vitral.engines.cores import cores
from vitral.engines.openvino import core
from vitral.evaluation.evaluate import merged
from vitral.models.measure import measure
from vitral.predict import Predictor, load
from vitral.training.machine import processor

VIT = (hf.ViTForImageClassification, hf.ViTConfig)
MODELS = {
    "ViT-Ti": (*VIT, {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}),
    "ViT-S": (*VIT, {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}),
    "ViT-B": (*VIT, {}),
    "Swin-T": (hf.SwinForImageClassification, hf.SwinConfig, {}),
}
SIZES = (1, 8)
WARM = 0.25  # seconds
CLOCK = time.process_time if cores() == 1 else time.perf_counter
Run = Callable[[np.ndarray], object]


def photographs(folder: Path, count: int) -> None:
    """Of two classes, cut from scikit-learn's two photographs."""
    for k, each in enumerate(load_sample_images().images):
        (folder / str(k)).mkdir(parents=True)
        for i in range(count // 2):
            cut = Image.fromarray(each).crop((i * 23 % 400, i * 31 % 190, i * 23 % 400 + 235, i * 31 % 190 + 235))
            cut.save(folder / str(k) / f"{i}.png")


def transformers_of(theirs: hf.PreTrainedModel, bf16: bool) -> Run:
    dtype = torch.bfloat16 if bf16 else torch.float32
    model = theirs.to(dtype) if not bf16 else type(theirs)(theirs.config).eval().to(dtype)
    if bf16:
        model.load_state_dict(theirs.state_dict())

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> object:
        return model(pixel_values=((torch.from_numpy(pixels).float() - 127.5) / 127.5).to(dtype)).logits.float()

    return run


def autocast_of(predictor: Predictor) -> Run:
    def run(pixels: np.ndarray) -> object:
        with predictor.engine.computing("bf16"):
            return predictor.engine(pixels)

    return run


def onnx_ways(predictor: Predictor, work: Path, name: str) -> dict[str, Run]:
    files = {"": work / "rival.onnx"}
    if name.startswith("ViT"):
        from onnxruntime.transformers import optimizer

        config: Any = predictor.model.config
        made = optimizer.optimize_model(
            str(files[""]), model_type="vit", num_heads=config.num_heads, hidden_size=config.dim, opt_level=0
        )
        files[", its optimiser for ViTs"] = work / "rival-vit.onnx"
        made.save_model_to_file(str(work / "rival-vit.onnx"))
    ways = {}
    for how, file in files.items():
        for spinning in "10":
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = cores()
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            taken = session.get_inputs()[0].name
            ways[f"ONNX Runtime{how}{'' if spinning == '1' else ', no spinning'}"] = lambda x, s=session, t=taken: (
                s.run(None, {t: x})[0]
            )
    return ways


def openvino_ways(work: Path, precision: str) -> dict[str, Run]:
    model = core().read_model(work / "rival.xml")
    ways: dict[str, Run] = {}
    for hint, streams in (("LATENCY", 1), ("THROUGHPUT", cores())):
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores(), "PERFORMANCE_HINT": hint}
        compiled = core().compile_model(model, "CPU", settings)
        requests = [compiled.create_infer_request() for _ in range(streams)]

        def run(pixels: np.ndarray, requests: list = requests) -> object:
            parts = [part for part in np.array_split(pixels, len(requests)) if len(part)]
            for request, part in zip(requests, parts, strict=False):
                request.start_async([part])
            for request, _ in zip(requests, parts, strict=False):
                request.wait()
            return np.concatenate([r.get_output_tensor(0).data.copy() for r, _ in zip(requests, parts, strict=False)])

        ways[f"OpenVINO, {hint.lower()}{', bf16' if precision == 'bf16' else ''}"] = run
    return ways


def best(found: Optimised, size: int, precisions: set[str]) -> tuple[str, Predictor]:
    """What `optimize` chooses by batches of this size, among ways of these precisions."""
    way = max((each for each in found.results if each.way.precision in precisions), key=lambda e: e.rates[size]).way
    return way.name, way.predictor


def compare(name: str, work: Path, rounds: int) -> None:
    kind, configuration, options = MODELS[name]
    torch.manual_seed(0)
    theirs = kind(configuration(**options, num_labels=10)).eval()
    torch.nn.init.normal_(theirs.classifier.weight, std=0.2)
    theirs.save_pretrained(work / "hf")
    hf.ViTImageProcessor().save_pretrained(work / "hf")
    made = load(work / "hf")
    save_model(work / "model.safetensors", made.model, made.card)
    predictor, data = load(work / "model.safetensors"), open_data(str(work.parent / "photographs"))
    split = merged(data)
    views = [
        made.card.preprocess.view(made.read(str(path)))
        for path in sorted((work.parent / "photographs").rglob("*.png"))[:8]
    ]
    for suffix in (".onnx", ".xml"):
        export(predictor, work / f"rival{suffix}")
    began = time.perf_counter()
    found = optimise(
        work / "model.safetensors", split, list(made.labels), [], views, work / "fast", loss=100, batch=max(SIZES)
    )
    print(f"{name}: optimize took {time.perf_counter() - began:.0f} s\n{found.table()}", flush=True)
    groups: dict[str, dict[str, dict[str, Run]]] = {
        "float32": {
            "PyTorch, eager": {"PyTorch": predictor.engine},
            "Transformers": {"Transformers": transformers_of(theirs, False)},
            "ONNX Runtime": onnx_ways(predictor, work, name),
            "OpenVINO": openvino_ways(work, "f32"),
        },
    }
    if any(each.way.precision == "bf16" for each in found.results):
        groups["bfloat16"] = {
            "PyTorch, eager": {"PyTorch, bf16 by autocast": autocast_of(predictor)},
            "Transformers": {"Transformers, bf16": transformers_of(theirs, True)},
            "OpenVINO": openvino_ways(work, "bf16"),
        }
    for size in SIZES:
        rows = {group: best(found, size, {"fp32"} if group == "float32" else {"fp32", "bf16"}) for group in groups}
        turns(name, size, views, groups, rows, rounds, measure(predictor.model.config).multiply_adds)


def turns(name, size, views, groups, rows, rounds, multiply_adds) -> None:
    """Everything in turns on one batch, and a line for each group and rival."""
    batch = np.stack([views[i % len(views)] for i in range(size)])
    ways: dict[tuple[str, ...], Run] = {("ours", group): predictor.engine for group, (_, predictor) in rows.items()}
    for group, rivals in groups.items():
        ways |= {(group, rival, how): run for rival, hows in rivals.items() for how, run in hows.items()}
    squares = {"float32": torch.randn(2, 2048, 2048), "bfloat16": torch.randn(2, 2048, 2048).bfloat16()}
    took: dict[object, list[float]] = {key: [] for key in [*ways, *groups]}
    said: dict[object, np.ndarray] = {}
    for number in range(rounds):
        for key, run in random.Random(number).sample(sorted(ways.items(), key=str), len(ways)):
            began = time.perf_counter()
            while time.perf_counter() - began < WARM:
                said[key] = np.asarray(run(batch))
            began = CLOCK()
            run(batch)
            took[key].append(CLOCK() - began)
        for group in groups:
            began = CLOCK()
            torch.mm(*squares[group])
            took[group].append(CLOCK() - began)
    exact = torch.from_numpy(said["float32", "PyTorch, eager", "PyTorch"]).softmax(-1)
    for group, rivals in groups.items():
        mine = took["ours", group]
        most = 2048**3 / median(took[group]) / multiply_adds
        apart = (torch.from_numpy(said["ours", group]).softmax(-1) - exact).abs().max()
        print(
            f"{name}, batch {size}, {group}: {rows[group][0]}: {size / median(mine):.1f} images/s, {size / median(mine) / most:.0%} of "
            f"{most:.1f}; answers differ by {apart:.0e}",
            flush=True,
        )
        for rival, hows in rivals.items():
            how = min(hows, key=lambda each: median(took[group, rival, each]))
            times = took[group, rival, how]
            ratio = median(theirs / ours for theirs, ours in zip(times, mine, strict=True))
            print(f"    {how:50} {size / median(times):8.1f} images/s; ours {ratio:.2f} times as fast", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    hf.logging.set_verbosity_error()
    print(processor(), cores(), "cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder, "photographs"), 16)
        for name in given.models:
            work = Path(folder, name)
            work.mkdir()
            compare(name, work, given.rounds)


if __name__ == "__main__":
    main()
