"""The files for Docker, KServe and Triton, which are not run here: their syntax, and that the command in them is one."""

import json
import re

import pytest
import yaml

from vitral.cli.parse import parse
from vitral.cli.serve import Serve


@pytest.fixture
def folder(pytestconfig):
    return pytestconfig.rootpath / "docs" / "serving"


def given(words):
    assert words[:2] == ["vitral", "serve"]
    return parse(Serve, "serve", words[2:])


def test_the_image_runs_a_command_that_there_is(folder):
    lines = [line for line in (folder / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} == {"FROM", "COPY", "RUN", "USER", "EXPOSE", "CMD"}
    command = given(json.loads(lines[-1].removeprefix("CMD ")))
    assert (command.host, command.port) == ("0.0.0.0", 8000)
    assert "EXPOSE 8000" in lines


def test_the_custom_predictor_asks_where_the_server_answers(folder):
    service = yaml.safe_load((folder / "kserve.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    command = given(container["args"])
    assert container["ports"][0]["containerPort"] == command.port == 8000
    assert service["spec"]["predictor"]["timeout"] > command.deadline
    assert {container[f"{what}Probe"]["httpGet"]["path"] for what in ("liveness", "readiness")} == {
        "/v2/health/live",
        "/v2/health/ready",
    }
    assert service["metadata"]["annotations"]["prometheus.io/path"] == "/metrics"


def test_tritons_configuration_is_written_as_its_fields_are(folder):
    lines = [line for line in (folder / "config.pbtxt").read_text().splitlines() if not line.startswith("#")]
    fields = [re.fullmatch(r'(\w+)(?:: (?:"\w+"|\d+)| \{ \})', line) for line in lines]
    assert [field[1] for field in fields] == ["backend", "max_batch_size", "dynamic_batching"]
