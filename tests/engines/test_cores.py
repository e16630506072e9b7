"""The cores that a process may use: by its affinity, and by the limits of the control groups around it."""

import math
import os

import pytest

from vitral.engines import cores as module
from vitral.engines.cores import cores, quota


@pytest.fixture
def groups(tmp_path):
    (tmp_path / "groups" / "pod" / "box").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/pod/box\n")
    return tmp_path / "groups"


def test_the_tightest_limit_on_the_way_up_counts(groups):
    own = groups.parent / "own"
    assert quota(groups, own) == math.inf
    (groups / "cpu.max").write_text("max 100000\n")
    (groups / "pod" / "cpu.max").write_text("150000 100000\n")
    (groups / "pod" / "box" / "cpu.max").write_text("400000 100000\n")
    assert quota(groups, own) == 1.5
    (groups / "pod" / "cpu.max").write_text("max 100000\n")
    assert quota(groups, own) == 4


def test_inside_a_container_the_group_is_the_root(groups):
    (groups / "cpu.max").write_text("50000 100000\n")
    (groups.parent / "own").write_text("0::/\n")
    assert quota(groups, groups.parent / "own") == quota(groups, groups.parent / "none") == 0.5


def test_the_first_version_of_control_groups(groups):
    (groups / "cpu").mkdir()
    for given, limit in ((-1, math.inf), (250000, 2.5)):
        (groups / "cpu" / "cpu.cfs_quota_us").write_text(f"{given}\n")
        (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        assert quota(groups, groups.parent / "none") == limit


@pytest.mark.parametrize(("limit", "wanted"), [(math.inf, 3), (1.5, 2), (0.2, 1), (8, 3)])
def test_whole_cores_within_the_affinity(monkeypatch, limit, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5})
    monkeypatch.setattr(module, "quota", lambda: limit)
    assert cores() == wanted
