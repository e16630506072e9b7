"""A folder behind http://, on this machine, whose answers can be bad."""

import contextlib
import http.server
import random
import threading

from vitral.data import ranges


class Server(http.server.ThreadingHTTPServer):
    """A folder by HTTP with ranges, of which a share of the answers is dropped, stalls or is damaged."""

    daemon_threads = True
    bad = 0.0
    pause = 1.0
    whole = False  # whether it knows no ranges, as python -m http.server
    once = False  # whether the first answer for each range is bad, too

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.random, self.asked, self.spoiled = folder, random.Random(0), 0, 0
        self.seen = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer's body waits 40 ms for the client to acknowledge its head

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        size, start, status = path.stat().st_size, 0, 200
        end = size - 1
        damaged = False
        if self.headers.get("Range") is not None and self.server.whole:
            self.server.asked += 1
        elif (asked := self.headers.get("Range")) is not None:
            first, last = asked.removeprefix("bytes=").split("-")
            start, end, status = int(first), min(int(last or size - 1), size - 1), 206
            self.server.asked += 1
            again = (self.path, asked) in self.server.seen
            self.server.seen.add((self.path, asked))
            if self.server.random.random() < self.server.bad or (self.server.once and not again):
                self.server.spoiled += 1
                how = self.server.random.choice(["drop", "stall", "damage"])
                if how == "drop":
                    self.close_connection = True
                    return
                if how == "stall":
                    threading.Event().wait(self.server.pause)
                damaged = True
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(end + 1 - start)
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        if not self.server.whole:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(bytes(len(data)) if damaged else data)


@contextlib.contextmanager
def serving(folder, cache, monkeypatch):
    """A server of the folder, with a cache folder of its own; answers are soon taken for stalled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "cache"))
    monkeypatch.setattr(ranges, "STALLED", 0.3)
    monkeypatch.setattr(ranges, "WAIT", 0.001)
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
