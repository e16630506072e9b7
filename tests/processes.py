"""`vitral` as processes of its own, for what only a process shows: signals, kills, streams. All else runs `vitral.cli.main` in the tests' process."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time

PATIENCE = 600.0
"""Seconds for what must happen at last, however busy the machine is: who waits for longer waits for something that hangs."""


def start(*words, code=None, environment=None, **options):
    """A running `vitral WORDS`, or Python code with these words. environment: beside this process's; options: of `subprocess.Popen`."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "vitral"]), *map(str, words)]
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    } | options
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}), **options)


def run(*words, code=None, folder=None):
    """The same, ended: with its exit status and all that it said."""
    process = start(*words, code=code, cwd=folder)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def eventually(happens, process=None):
    """What `happens` returns, once it is true; fails where a process ends before, or after PATIENCE."""
    began = time.monotonic()
    while not (found := happens()):
        assert process is None or process.poll() is None or happens(), process.communicate()[1]
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.01)
    return found


def request(port, method, path, body=None, headers=None):
    """(status, JSON) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"connection": "close"} | (headers or {}))
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if answer.headers.get("content-type") == "application/json" else data


def ready(port):
    with contextlib.suppress(OSError):
        return request(port, "GET", "/v2/health/ready")[0] == 200


@contextlib.contextmanager
def serving(*words, code=None, environment=None, folder=None):
    """(a running `vitral serve` that is ready, its port, what it said first)"""
    started = start(*words, code=code, environment=environment, cwd=folder)
    try:
        line = started.stderr.readline()
        found = re.search(r"http://[^ ]*:(\d+)/", line)
        assert found, line + started.stderr.read()
        port = int(found[1])
        eventually(lambda: ready(port), started)
        yield started, port, line
    finally:
        started.kill()
        started.communicate()
