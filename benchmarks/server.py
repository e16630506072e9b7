"""Images in shards behind a server that drops, stalls or damages 1 % of its answers: how many images a second that costs.

    python benchmarks/server.py [--images 6000] [--bad 0.01] [--latency 0.02]

The server is a process of its own on this machine and answers after `latency` seconds; a stalled answer comes after a minute. Batches are computed
by two loader processes, as in a run with `--workers 2`, and nothing is kept on disk. Every image of the epoch is compared with what was packed.
"""

import argparse
import http.server
import multiprocessing
import os
import random
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vitral.data.augment import Augmentation
from vitral.data.formats.pack import pack
from vitral.data.listers import list_data
from vitral.data.loader import TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data

SIDE, BATCH, WORKERS, ROUNDS = 64, 50, 2, 3


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # an answer in one piece, at once
    folder, bad, latency = Path(), 0.0, 0.0
    draw = random.Random(0)

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        start, length, status = 0, size, 200
        if (asked := self.headers.get("Range")) is not None:
            first, last = asked.removeprefix("bytes=").split("-")
            start, status = int(first), 206
            length = min(int(last or size - 1), size - 1) - start + 1
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(length)
        time.sleep(self.latency)
        if status == 206 and self.draw.random() < self.bad:
            how = self.draw.choice(["drop", "stall", "damage"])
            if how == "drop":
                self.close_connection = True
                return
            if how == "stall":
                threading.Event().wait(60)
            data = bytes(len(data))
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def serve(folder: Path, bad: float, latency: float, told: "multiprocessing.Queue[int]") -> None:
    Handler.folder, Handler.bad, Handler.latency = folder, bad, latency
    server = Quiet(("127.0.0.1", 0), Handler)
    told.put(server.server_address[1])
    server.serve_forever()


def epoch(url: str, images: int) -> tuple[float, str]:
    """Images a second of an epoch, each image of which is looked at; and what the server did."""
    data = open_data(url, DataOptions(near_copies="apart", keep_gigabytes=0, val_fraction=0, test_fraction=0))
    split, steps = data.splits["train"], Preprocess(SIDE, SIDE, 3, (0.5,) * 3, (0.5,) * 3)
    batches = TrainingBatches(split, steps, [Augmentation(AugmentOptions(crop="none", hflip=0), steps)], BATCH, 0)
    began, seen, said = time.perf_counter(), [], []
    for batch in batches.stream(0, images // BATCH, WORKERS):
        seen += [(int(view[0, 0, 0]) << 8) + int(view[1, 0, 0]) for view in batch.images]
        said += batch.remarks
    took = time.perf_counter() - began
    assert sorted(seen) == list(range(images)), "each image once"
    return images / took, f"{len(said)} remarks, the last: {said[-1]}" if said else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--bad", type=float, default=0.01)
    parser.add_argument("--latency", type=float, default=0.02)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        folder, shards, noise = Path(place, "folder"), Path(place, "shards"), np.random.default_rng(0)
        for i in range(given.images):
            pixels = noise.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            pixels[0, 0] = i >> 8, i & 255, 0
            target = folder / str(i % 10) / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target, compress_level=1)
        shards.mkdir()
        pack(list_data(str(folder), DataOptions()), shards, 2**24)
        rates: dict[float, list[float]] = {0.0: [], given.bad: []}
        for _ in range(ROUNDS):
            for bad, found in rates.items():
                told: multiprocessing.Queue[int] = multiprocessing.Queue()
                server = multiprocessing.Process(target=serve, args=(shards, bad, given.latency, told), daemon=True)
                server.start()
                rate, said = epoch(f"http://127.0.0.1:{told.get()}", given.images)
                found.append(rate)
                print(f"{bad:.0%} bad: {rate:,.0f} images/s; {said}", flush=True)
                server.kill()
        clean, spoiled = (sorted(found)[ROUNDS // 2] for found in rates.values())
        print(f"median of {ROUNDS} epochs: {clean:,.0f} and {spoiled:,.0f} images/s, {1 - spoiled / clean:.0%} lost")


if __name__ == "__main__":
    main()
