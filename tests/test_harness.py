"""How the tests themselves run: `make test` answers alike for the same commit, and a process keeps to one core."""

import os
import re

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def drawn(profile: str) -> list[int]:
    """What a property is tried with."""
    seen = []

    @settings(settings.get_profile(profile), max_examples=20)
    @given(st.integers())
    def look(x):
        seen.append(x)

    look()
    return seen


def test_examples_are_the_same_every_time_unless_other_ones_are_asked_for(pytestconfig):
    assert drawn("steady") == drawn("steady")
    if pytestconfig.getoption("--hypothesis-seed") is None:
        assert drawn("random") != drawn("random")


def test_the_profile_in_force_is_the_one_asked_for(pytestconfig):
    """Also where CI=true, for which hypothesis has a profile of its own; and none depends on the machine's load."""
    chosen = settings.get_profile(pytestconfig.getoption("--hypothesis-profile") or "steady")
    assert settings.default.derandomize is chosen.derandomize
    for profile in (settings.get_profile("steady"), settings.get_profile("random")):
        assert profile.deadline is None
        assert HealthCheck.too_slow in profile.suppress_health_check
        assert profile.print_blob


def test_make_test_is_steady_and_make_test_all_is_random(pytestconfig):
    root = pytestconfig.rootpath
    lines = dict(re.findall(r"^(test|test-all):.*\n\t(.* -m pytest .*)", (root / "Makefile").read_text(), re.MULTILINE))
    assert "hypothesis" not in lines["test"]
    assert "--hypothesis-profile=random" in lines["test-all"]
    assert re.search(r"make test$|make test ", (root / ".ci/run").read_text(), re.MULTILINE)


def test_a_process_keeps_to_one_core():
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"  # for those that tests start
