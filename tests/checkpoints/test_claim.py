"""A folder belongs to one process at a time: within a process, between processes, and free again when its owner dies."""

import os
import subprocess
import sys
import threading

import pytest

from vitral.checkpoints.claim import Claim, claim_unused, going_on
from vitral.errors import VitralError

HOLDER = """
import os, signal, sys
from pathlib import Path
from vitral.checkpoints.claim import Claim
claim = Claim(Path(sys.argv[1]))
if os.fork() == 0:
    signal.pause()  # as a loader process that outlives its run
print("held", flush=True)
signal.pause()
"""


def test_within_a_process(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with Claim(tmp_path):
        assert going_on(tmp_path)
        with pytest.raises(VitralError, match="a run is going on there"):
            Claim(tmp_path / "link")
        assert going_on(tmp_path)
    assert not going_on(tmp_path)
    kept = Claim(tmp_path)
    del kept  # nobody holds it any more
    with Claim(tmp_path):
        pass


def test_between_processes_until_the_owner_dies_and_not_its_children(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert going_on(tmp_path)
        held_by = rf"going on there \(process {holder.pid}\)" if sys.platform == "linux" else "going on there;"
        with pytest.raises(VitralError, match=held_by):
            Claim(tmp_path)
        assert claim_unused(tmp_path).folder == tmp_path.with_name(f"{tmp_path.name}-2")
        holder.kill()
        holder.wait()
        assert not going_on(tmp_path)
        with Claim(tmp_path):
            pass
    finally:
        os.killpg(holder.pid, 9)
        holder.stdout.close()
        holder.wait()


def test_names_that_are_asked_for_at_once_differ(tmp_path):
    claims, start = [], threading.Barrier(8)

    def ask():
        start.wait()
        claims.append(claim_unused(tmp_path / "runs" / "photos"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {"photos", *(f"photos-{n}" for n in range(2, 9))}
    assert {claim.folder.name for claim in claims} == wanted
    for claim in claims:
        claim.undo()
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_was_there_stays(tmp_path):
    (tmp_path / "kept").write_text("x")
    Claim(tmp_path).undo()
    assert (tmp_path / "kept").exists()
    (tmp_path / "file").touch()
    with pytest.raises(VitralError, match="cannot be written to"):
        Claim(tmp_path / "file")
