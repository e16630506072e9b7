"""A server under load on loopback: its capacity, and at shares of it latency, goodput, refusals and memory; beside LitServe with the same model.

    python benchmarks/serving.py                            # ViT-Ti/16, 224 px, random weights, in PyTorch and exported
    python benchmarks/serving.py --litserve FOLDER          # FOLDER: pip install --target FOLDER -c constraints.txt litserve==0.2.19

Capacity: answers a second to clients that ask again as soon as they are answered. Load: requests at random times (Poisson), whether or not earlier
ones were answered, as people send them; each on a connection of its own, one JPEG of 500 x 375 in JSON. An answer is good within --deadline seconds,
measured by the client. The client shares the machine, so that figures are for comparison. LitServe runs the same predictor on the same bytes, in
batches of as many images, and waits at most 1 ms for a batch to fill (0 would make batches of one).
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from statistics import quantiles

import numpy as np
from PIL import Image

BATCH, CLIENTS = 8, 16
LITSERVE = """
import base64
import sys
import litserve as ls
from vitral.predict import load

class Api(ls.LitAPI):
    def setup(self, device):
        self.predictor = load(sys.argv[1])
    def decode_request(self, request):
        pixels = self.predictor.read(base64.b64decode(request["inputs"]))
        return self.predictor.card.preprocess.view(pixels), self.predictor.placed(pixels)
    def batch(self, inputs):
        return inputs
    def predict(self, inputs):
        views, placed = zip(*inputs)
        return self.predictor.predict_batch(views, ["image"] * len(views), placed)
    def unbatch(self, outputs):
        return outputs
    def encode_response(self, output):
        return output.to_json()

if __name__ == "__main__":
    api = Api(max_batch_size=int(sys.argv[3]), batch_timeout=0.001)
    ls.LitServer(api, accelerator="cpu", timeout=60).run(port=int(sys.argv[2]), host="127.0.0.1", log_level="error", generate_client_file=False)
"""


def picture(seed: int) -> bytes:
    """A body: a JPEG of 500 x 375, as photographs are, in Hugging Face's JSON, which both servers read."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return json.dumps({"inputs": b64encode(buffer.getvalue()).decode()}).encode()


async def ask(port: int, path: str, body: bytes, timeout: float) -> tuple[int, float]:
    """(status, seconds) of one request on a connection of its own; status 0 where there was no answer."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            lines = [
                f"POST {path} HTTP/1.1",
                "Host: localhost",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return 0, time.perf_counter() - began
    return int(answer[9:12] or b"0"), time.perf_counter() - began


async def capacity(port: int, path: str, pictures: list[bytes], seconds: float) -> float:
    """Answers a second to clients that never rest."""
    end, done = time.perf_counter() + seconds, 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            status, _ = await ask(port, path, pictures[number % len(pictures)], 60)
            done += status == 200

    began = time.perf_counter()
    await asyncio.gather(*map(client, range(CLIENTS)))
    return done / (time.perf_counter() - began)


async def load(
    port: int, path: str, pictures: list[bytes], rate: float, seconds: float, deadline: float
) -> dict[str, float]:
    """What becomes of requests that come at this rate."""
    drawn, asked = random.Random(0), []
    began = at = time.perf_counter()
    while at < began + seconds:
        at += drawn.expovariate(rate)
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        asked.append(asyncio.create_task(ask(port, path, pictures[len(asked) % len(pictures)], 60)))
    results = await asyncio.gather(*asked)
    took = time.perf_counter() - began
    answered = sorted(s for status, s in results if status == 200)
    cuts = quantiles(answered, n=100) if len(answered) > 1 else [float("nan")] * 99
    return {
        "asked": len(results) / seconds,
        "p50_ms": 1000 * cuts[49],
        "p99_ms": 1000 * cuts[98],
        "goodput": sum(s <= deadline for s in answered) / took,
        "refused": sum(status == 503 for status, _ in results) / len(results),
        "lost": sum(status not in (200, 503) for status, _ in results) / len(results),
    }


def memory(process: int) -> float:
    """Megabytes that the process and its children hold now."""
    total, waiting = 0, [process]
    while waiting:
        own = waiting.pop()
        try:
            total += int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{own}/status").read_text())[1])  # type: ignore[index]
            waiting += map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())
        except (OSError, TypeError):
            continue
    return total / 1000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def measured(
    name: str, command: list[str], port: int, path: str, given: argparse.Namespace, env: dict[str, str]
) -> None:
    """Start a server, measure it, print a row for each load, and end it."""
    process = subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    pictures = [picture(seed) for seed in range(8)]
    try:
        end = time.monotonic() + 120
        while asyncio.run(ask(port, path, pictures[0], 10))[0] != 200:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} did not start: {process.communicate()[1].decode()[-2000:]}")
            time.sleep(0.2)
        asyncio.run(capacity(port, path, pictures, given.seconds / 3))
        most = asyncio.run(capacity(port, path, pictures, given.seconds))
        print(f"{name}: capacity {most:.1f} images/s, {memory(process.pid):.0f} MB", flush=True)
        for share in (0.5, 0.9, 1.5):
            row = asyncio.run(load(port, path, pictures, share * most, given.seconds, given.deadline))
            row |= {"memory_mb": memory(process.pid)}
            print(
                json.dumps({"server": name, "load": share, **{key: round(value, 3) for key, value in row.items()}}),
                flush=True,
            )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--deadline", type=float, default=2.0)
    parser.add_argument("--litserve", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["torch", "onnx"], help="torch, onnx, 'onnx, no spinning'")
    given = parser.parse_args()
    from vitral.checkpoints.bundle import save_model
    from vitral.checkpoints.card import ModelCard
    from vitral.checkpoints.create import create_model
    from vitral.data.preprocess import Preprocess
    from vitral.deploy.export.formats import export
    from vitral.deploy.export.writers import told_anew
    from vitral.engines.exported import THREADING
    from vitral.models.zoo import family_of
    from vitral.predict import load as open_model

    with tempfile.TemporaryDirectory() as folder:
        model = create_model(given.model, num_classes=10)
        steps = Preprocess(224, 224, 3, (0.5,) * 3, (0.5,) * 3)
        file, exported = Path(folder, "m.safetensors"), Path(folder, "m.onnx")
        save_model(
            file,
            model,
            ModelCard(family_of(model.config), model.config.arguments(), [f"kind {k}" for k in range(10)], steps),
        )
        export(open_model(file), exported)
        quiet = Path(folder, "told", "m.onnx")
        told_anew(exported, quiet, {THREADING: "blocking"})
        kinds = {"torch": file, "onnx": exported, "onnx, no spinning": quiet}
        for kind in given.kinds:
            port = free_port()
            words = ["--port", str(port), "--batch-size", str(BATCH), "--deadline", str(given.deadline)]
            measured(
                f"vitral {kind}",
                [sys.executable, "-m", "vitral", "serve", str(kinds[kind]), *words],
                port,
                "/",
                given,
                {},
            )
        if given.litserve is not None:
            script = Path(folder, "peer.py")
            script.write_text(LITSERVE)
            for kind in given.kinds:
                port = free_port()
                env = {"PYTHONPATH": os.pathsep.join([str(given.litserve), os.environ.get("PYTHONPATH", "")])}
                measured(
                    f"litserve {kind}",
                    [sys.executable, str(script), str(kinds[kind]), str(port), str(BATCH)],
                    port,
                    "/predict",
                    given,
                    env,
                )


if __name__ == "__main__":
    main()
