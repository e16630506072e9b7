"""Two replicas on this machine, by Ray Serve."""

import http.client
import importlib.util
import json

import pytest
from served import saved
from viewing import encoded

from vitral.errors import VitralError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray: is not installed (the extra scale)"),
]


def ask(method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", 8123, timeout=300)
    connection.request(method, path, body, {"connection": "close"})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data)


def test_two_replicas_answer_as_one_server(tmp_path):
    import ray
    from ray import serve

    from vitral.deploy.serve.replica import application

    truth = saved(tmp_path / "photos.safetensors", seed=1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8123})
        serve.run(application({"models": str(tmp_path / "photos.safetensors"), "replicas": "2", "deadline": "300"}))
        for seed in range(12):
            status, answer = ask("POST", "/predict", encoded(seed=seed))
            assert status == 200
            assert answer["probability"] == pytest.approx(truth.predict(encoded(seed=seed)).probability, abs=1e-5)
        assert ask("POST", "/predict", b"no picture")[0] == 400
        assert ask("GET", "/v2/models/photos")[1]["platform"] == "vitral_torch"
        states = serve.status().applications["default"].deployments["vitral"].replica_states
        assert states == {"RUNNING": 2}
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.parametrize(("args", "says"), [({}, "which?"), ({"models": "a", "gpu": "1"}, "gpu: no such argument")])
def test_arguments_that_are_none(args, says):
    from vitral.deploy.serve.replica import application

    with pytest.raises(VitralError, match=says):
        application(args)
