"""The files for clusters in docs/scale.md are what their readers parse."""

import re
import subprocess

import pytest
import yaml

from vitral.cli.parse import parse
from vitral.cli.train import Train


@pytest.fixture
def text(pytestconfig):
    return (pytestconfig.rootpath / "docs/scale.md").read_text()


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_shells_parse_the_commands_and_the_batch_file(text):
    scripts = blocks(text, "bash")
    assert sum("#SBATCH" in script for script in scripts) == 1
    for script in scripts:
        assert not subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr


def test_kubernetes_job_and_service_belong_together(text):
    job, service = [each for block in blocks(text, "yaml") for each in yaml.safe_load_all(block)]
    assert (job["kind"], service["kind"]) == ("Job", "Service")
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all(isinstance(each["value"], str) for each in container["env"])


def test_the_commands_inside_are_vitrals(text):
    (container,) = next(yaml.safe_load_all(blocks(text, "yaml")[0]))["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    own = words[words.index("train") + 1 :]
    for command in (own, re.search(r"-m vitral train (/data.*)", text)[1].split()):
        given = parse(
            Train,
            "train",
            ["https://host/x", *[w for w in command[1:] if "recipe" not in w and not w.endswith(".toml")]],
        )
        assert given.go_on
        assert given.out is not None
