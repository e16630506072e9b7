"""A server's answers: the predictor's own, whatever the protocol, task and company; and what is refused before it costs anything."""

import asyncio
import base64
import gc
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import numpy as np
import pytest
import tifffile
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import SIZE, TASKS, client, listening, saved, served
from viewing import encoded

from processes import PATIENCE, eventually
from vitral.deploy import limits as sizes
from vitral.deploy.export.formats import export
from vitral.deploy.serve import asking, models
from vitral.deploy.serve.serving import Limits, Picture, Serving
from vitral.deploy.worker import Job, Together, Worker
from vitral.errors import VitralError
from vitral.predict import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of every task, and one exported."""
    folder = tmp_path_factory.mktemp("models")
    for task in TASKS:
        saved(folder / f"{task}.safetensors", task)
    export(load(folder / "classify.safetensors"), folder / "exported.onnx")
    return folder


@pytest.fixture(scope="module")
def all_tasks(folder):
    names = [folder / f"{task}.safetensors" for task in TASKS]
    with served(*names, folder / "exported.onnx") as serving:
        for task in ("detect", "instance", "panoptic"):  # models that learned nothing are sure of nothing
            serving.models[task].loaded.predictor.answers.threshold = 0.0
        yield serving


@pytest.fixture(autouse=True)
def seldom(monkeypatch):
    """Files are looked at when a test does it."""
    monkeypatch.setattr(models, "LOOK", PATIENCE)


@pytest.fixture
def ask(all_tasks):
    return client(all_tasks)


def close(found, wanted):
    """Whether two answers in JSON are the same but for the last digits, which hang on the batch."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(close(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    return found == pytest.approx(wanted, abs=1e-4) if isinstance(wanted, float) else found == wanted


def own(answer, **also):
    """What `vitral predict` writes of an answer, in the server's row."""
    return json.loads(json.dumps(answer.to_json())) | also


@pytest.mark.parametrize("name", [*TASKS, "exported"])
def test_the_answer_is_the_predictors(ask, all_tasks, folder, name):
    predictor = all_tasks.models[name].loaded.predictor
    for seed in range(3):
        picture = encoded(seed=seed)
        answer = ask.post(f"/predict?model={name}", content=picture)
        assert answer.status_code == 200
        version = all_tasks.models[name].loaded.version
        assert close(answer.json(), own(predictor.predict(picture), image="image", model=name, version=version))


def test_a_picture_that_curl_calls_a_form_is_a_picture(ask, all_tasks):
    curls = {"content-type": "application/x-www-form-urlencoded"}
    answer = ask.post("/predict", content=encoded(), headers=curls)
    assert answer.json()["probability"] == pytest.approx(
        all_tasks.models["classify"].loaded.predictor.predict(encoded()).probability, abs=1e-5
    )
    for content, says in ((encoded()[:-60], "is damaged"), (b"some text", "is not a JPEG, PNG"), (b"", "is empty")):
        assert says in ask.post("/predict", content=content, headers=curls).json()["error"]


def test_what_is_asked_for_by_another_name_is_told(ask):
    answer = ask.post("/predict?topk=2", content=encoded())
    assert answer.status_code == 400
    assert "?topk: " in answer.json()["error"]
    answer = ask.post("/", files=[("file", ("a.png", encoded()))])
    assert answer.status_code == 415
    assert "forms to /predict" in answer.json()["error"]


def test_how_many_classes_is_asked_for(ask):
    for count in (1, 2, 4, 100):
        found = ask.post(f"/predict?top_k={count}", content=encoded()).json()
        assert len(found["top"]) == min(count, 4)
    assert ask.post("/predict?top_k=0", content=encoded()).status_code == 400


def test_a_form_of_several_files_is_answered_in_order(ask, all_tasks):
    """What cannot be read has its error in its row, by the file's name."""
    files = [("file", (f"{seed}.png", encoded(seed=seed))) for seed in range(9)]
    files.insert(4, ("other", ("broken.png", encoded()[:-60])))
    rows = ask.post("/predict", files=files).json()
    predictor = all_tasks.models["classify"].loaded.predictor
    assert [row["image"] for row in rows] == [name for _, (name, _) in files]
    assert rows[4]["error"].startswith("broken.png: is damaged")
    for row, (_, (name, data)) in zip(rows, files, strict=True):
        if name != "broken.png":
            assert row["probability"] == pytest.approx(predictor.predict(data).probability, abs=1e-5)
    single = ask.post("/predict", files=[("file", ("a.png", encoded()))]).json()
    assert single["image"] == "a.png"


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"", None, 400, "is empty"),
        (b"no picture at all", None, 400, "is not a JPEG, PNG"),
        (encoded()[:-60], "image/png", 400, "image: is damaged"),
        (b'{"url": "http://169.254.169.254/"}', "application/json", 415, "not followed"),
        (b"url=http://localhost/", "application/x-www-form-urlencoded", 415, "not followed"),
        (b"no form", "multipart/form-data; boundary=b", 400, "Invalid multipart"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400, "no picture came"),
        (b"no form", "multipart/form-data", 400, "boundary"),
        (
            b'--b\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttp://localhost\r\n--b--\r\n',
            "multipart/form-data; boundary=b", 400, "'url': is text",
        ),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_told(ask, content, kind, status, says):
    answer = ask.post("/predict", content=content, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_remedies_are_for_who_sends_the_picture(ask):
    """And not options of a command."""
    frames, values = io.BytesIO(), io.BytesIO()
    Image.new("L", (40, 56)).save(frames, "GIF", save_all=True, append_images=[Image.new("L", (40, 56), 99)])
    tifffile.imwrite(values, np.ones((40, 56), np.float32))
    for content, says in ((frames, "holds 2 frames or pages; send the one"), (values, "; send 8 or 16 bits")):
        for path in ("/predict", "/", "/v2/models/classify/infer"):
            told = {
                "name": "image",
                "shape": [1],
                "datatype": "BYTES",
                "data": [base64.b64encode(content.getvalue()).decode()],
            }
            answer = (
                ask.post(path, json={"inputs": [told]}) if "v2" in path else ask.post(path, content=content.getvalue())
            )
            assert answer.status_code == 400
            assert says in answer.json()["error"]
            assert "--" not in answer.json()["error"]


def test_a_picture_of_too_many_pixels_is_not_decoded(ask, monkeypatch):
    """A small file may hold a huge picture: its header says so."""
    monkeypatch.setattr(sizes, "MAX_PIXELS", 40 * 56 - 1)
    answer = ask.post("/predict", content=encoded(40, 56))
    assert answer.status_code == 413
    assert "more pixels than the limit" in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused_as_it_comes(ask):
    def much():  # without saying how much
        yield from (bytes(10_000_000) for _ in range(6))

    answer = ask.post("/predict", content=much(), headers={"content-type": "image/png"})
    assert answer.status_code == 413


def test_a_packed_body_is_not_unpacked(ask):
    for path in ("/predict", "/", "/v2/models/classify/infer"):
        assert ask.post(path, content=b"x", headers={"content-encoding": "gzip"}).status_code == 415


def test_a_body_that_does_not_arrive_is_not_waited_for(all_tasks, monkeypatch):
    monkeypatch.setattr(asking, "ARRIVING", 0.05)
    with listening(all_tasks) as port, httpx.Client() as ask:
        gate = threading.Event()

        def slow():
            yield b"a"
            gate.wait(PATIENCE)

        threading.Timer(1, gate.set).start()
        assert ask.post(f"http://localhost:{port}/predict", content=slow(), timeout=PATIENCE).status_code == 408


def test_an_explanation_on_request_lies_over_the_picture(ask):
    found = ask.post("/predict?explain=relevance", content=encoded(80, 112)).json()
    assert found["explanation"]["method"] == "relevance"
    drawn = Image.open(io.BytesIO(base64.b64decode(found["explanation"]["overlay"])))
    assert drawn.size == (112, 80)
    for model, method, says in (("classify", "tea_leaves", "tea_leaves"), ("exported", "relevance", "exported file")):
        answer = ask.post(f"/predict?model={model}&explain={method}", content=encoded())
        assert answer.status_code == 400
        assert says in answer.json()["error"]


def test_pictures_of_places_on_request(ask):
    found = ask.post("/predict?model=semantic&pictures=true", content=encoded(80, 112)).json()
    for drawn in found["pictures"].values():
        assert Image.open(io.BytesIO(base64.b64decode(drawn))).width >= 112


def test_unknown_models_are_named(ask):
    for method, path in (
        ("post", "/predict?model=cat"),
        ("post", "/models/cat"),
        ("get", "/v2/models/cat"),
        ("post", "/v2/models/cat/infer"),
    ):
        answer = getattr(ask, method)(path)
        assert answer.status_code == 404
        assert "'cat': is not served here; there is classify" in answer.json()["error"]


@pytest.mark.parametrize("task", TASKS)
def test_hugging_faces_json(ask, all_tasks, task):
    """The same of bytes and of base64, with the fields that its clients read."""
    picture = encoded(seed=2)
    plain = ask.post(f"/models/{task}", content=picture)
    packed = ask.post(
        f"/models/{task}", json={"inputs": base64.b64encode(picture).decode(), "parameters": {"top_k": 5}}
    )
    assert plain.status_code == packed.status_code == 200
    assert plain.json() == packed.json()
    assert plain.headers["vitral-version"] == all_tasks.models[task].loaded.version
    answer = all_tasks.models[task].loaded.predictor.predict(picture)
    more = {"semantic": "mask", "detect": "box", "instance": "mask", "panoptic": "mask"}.get(task)
    for row in plain.json():
        assert row.keys() == {"label", "score"} | ({more} if more else set())
        if more == "mask":
            mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["mask"]))))
            assert mask.shape == (40, 56)
            assert set(np.unique(mask)) <= {0, 255}
    if task in ("classify", "multilabel"):
        assert [(row["label"], pytest.approx(row["score"], abs=1e-5)) for row in plain.json()] == answer.top
    if task == "detect":
        assert len(plain.json()) == len(answer.objects) > 0


def test_hugging_faces_parameters(ask):
    data = base64.b64encode(encoded()).decode()
    assert len(ask.post("/", json={"inputs": data, "parameters": {"top_k": 2}}).json()) == 2
    assert ask.post("/", json={"inputs": f"data:image/png;base64,{data}"}).status_code == 200
    same = ask.post("/", json={"inputs": data, "parameters": {"function_to_apply": "softmax"}})
    assert same.json() == ask.post("/", content=encoded()).json()
    lines = base64.encodebytes(encoded()).decode()  # as the program base64 writes it
    for nothing_said in ({"parameters": None}, {"parameters": {"top_k": None, "function_to_apply": None}}, {}):
        assert ask.post("/", json={"inputs": lines, **nothing_said}).json() == same.json()
    for body, says in (
        ({"inputs": data, "parameters": {"function_to_apply": "sigmoid"}}, "scores are softmax"),
        ({"inputs": data, "parameters": {"top_k": 0}}, "parameters.top_k"),
        ({"inputs": data, "parameters": {"wait": 1}}, "parameters.wait"),
        ({"inputs": "http://localhost/cat.jpg"}, "not followed"),
        ({"inputs": "*"}, "no base64"),
        ({"inputs": ["a"]}, "inputs"),
        ({}, "inputs"),
        ([], "body: "),
    ):
        answer = ask.post("/", json=body)
        assert answer.status_code == 400, body
        assert says in answer.json()["error"]
    assert ask.post("/", content=b"{", headers={"content-type": "application/json"}).status_code == 400


def test_what_waits_is_computed_together(folder, monkeypatch):
    """While one image is computed others come; they are one batch, and each gets its own answer."""
    begun, gate, batches = threading.Event(), threading.Event(), []
    original = models.run

    def held(predictor, images, *rest):
        batches.append(len(images))
        begun.set()
        gate.wait(PATIENCE)
        return original(predictor, images, *rest)

    with served(folder / "classify.safetensors", limits=Limits(batch=4, deadline=PATIENCE)) as serving:
        monkeypatch.setattr(models, "run", held)
        predictor = load(folder / "classify.safetensors")
        with listening(serving) as port, ThreadPoolExecutor(8) as pool:
            url = f"http://localhost:{port}/predict"
            first = pool.submit(httpx.post, url, content=encoded(seed=0), timeout=PATIENCE)
            begun.wait(PATIENCE)
            others = [
                pool.submit(httpx.post, url, content=encoded(seed=seed), timeout=PATIENCE) for seed in range(1, 7)
            ]
            eventually(lambda: serving.worker.asked == 7)
            eventually(lambda: all(job.ready for job in [*serving.worker._line]))
            gate.set()
            for seed, answer in enumerate([first, *others]):
                found = answer.result(PATIENCE).json()["probability"]
                assert found == pytest.approx(predictor.predict(encoded(seed=seed)).probability, abs=1e-5)
    assert batches == [1, 4, 2]


def test_a_batch_that_fails_is_computed_image_by_image(folder, monkeypatch):
    original = models.run

    def fails(predictor, images, *rest):
        if any(image.name == "bad.png" for image in images):
            raise VitralError("bad.png: the engine does not like it")
        return original(predictor, images, *rest)

    with served(folder / "classify.safetensors") as serving:
        monkeypatch.setattr(models, "run", fails)
        names = ["a.png", "bad.png", "b.png", "c.png"]
        rows = client(serving).post("/predict", files=[("file", (name, encoded())) for name in names]).json()
    assert ["error" in row for row in rows] == [False, True, False, False]


def test_full_and_late_are_refused_with_when_to_come_again(folder, monkeypatch):
    begun, gate = threading.Event(), threading.Event()
    original = models.run

    def held(*given):
        begun.set()
        gate.wait(PATIENCE)
        return original(*given)

    with served(folder / "classify.safetensors", limits=Limits(batch=2, queue=3, deadline=PATIENCE)) as serving:
        monkeypatch.setattr(models, "run", held)
        with listening(serving) as port, ThreadPoolExecutor(8) as pool:
            url = f"http://localhost:{port}/predict"
            waiting = [pool.submit(httpx.post, url, content=encoded(), timeout=PATIENCE)]
            begun.wait(PATIENCE)
            waiting += [pool.submit(httpx.post, url, content=encoded(), timeout=PATIENCE) for _ in range(3)]
            eventually(lambda: serving.worker.asked == 4)
            full = httpx.post(url, content=encoded(), timeout=PATIENCE)
            assert full.status_code == 503
            assert int(full.headers["retry-after"]) >= 1
            assert "3 requests are waiting" in full.json()["error"]
            many = httpx.post(url, files=[("file", ("a.png", encoded()))] * 4, timeout=PATIENCE)
            assert many.status_code == 413
            serving.models["classify"].loaded.together.pace = 10 * PATIENCE
            waiting.pop().cancel()
            gate.set()
            assert all(each.result(PATIENCE).status_code == 200 for each in waiting)
        counted = samples(serving)
        assert counted["nv_inference_request_failure", "REJECTED"] == 5


def test_no_time_left_is_known_before_anything_is_computed(folder, monkeypatch):
    begun, gate = threading.Event(), threading.Event()
    original = models.run

    def held(*given):
        begun.set()
        gate.wait(PATIENCE)
        return original(*given)

    with served(folder / "classify.safetensors", limits=Limits(batch=1, deadline=30.0)) as serving:
        serving.models["classify"].loaded.together.pace = 12.0
        monkeypatch.setattr(models, "run", held)
        with listening(serving) as port, ThreadPoolExecutor(4) as pool:
            url = f"http://localhost:{port}/predict"
            first = pool.submit(httpx.post, url, content=encoded(), timeout=PATIENCE)
            begun.wait(PATIENCE)
            second = pool.submit(httpx.post, url, content=encoded(), timeout=PATIENCE)
            eventually(lambda: serving.worker.asked == 2)
            late = httpx.post(url, content=encoded(), timeout=PATIENCE)  # 12 s for each of three
            assert late.status_code == 503
            assert 1 <= int(late.headers["retry-after"]) <= 6
            assert "too late" in late.json()["error"]
            gate.set()
            assert first.result(PATIENCE).status_code == second.result(PATIENCE).status_code == 200


def test_who_leaves_is_not_computed_for(folder, monkeypatch):
    begun, gate, names = threading.Event(), threading.Event(), []
    original = models.run

    def held(predictor, images, *rest):
        names.extend(image.name for image in images)
        begun.set()
        gate.wait(PATIENCE)
        return original(predictor, images, *rest)

    def form(name):
        return {"files": [("file", (name, encoded()))], "timeout": PATIENCE}

    with served(folder / "classify.safetensors") as serving:
        monkeypatch.setattr(models, "run", held)
        with listening(serving) as port, ThreadPoolExecutor(4) as pool:
            url = f"http://localhost:{port}/predict"
            first = pool.submit(httpx.post, url, **form("first.png"))
            begun.wait(PATIENCE)
            with pytest.raises(httpx.TimeoutException):
                httpx.post(url, **form("left.png") | {"timeout": 0.3})
            eventually(lambda: serving.worker.asked == 1)
            last = pool.submit(httpx.post, url, **form("last.png"))
            eventually(lambda: serving.worker.asked == 2)
            gate.set()
            assert first.result(PATIENCE).status_code == last.result(PATIENCE).status_code == 200
        assert names == ["first.png", "last.png"]
        eventually(lambda: samples(serving).get(("nv_inference_request_failure", "CANCELED")) == 1)


def samples(serving):
    """(name, reason or model) -> value, as Prometheus reads it."""
    found = {}
    for family in text_string_to_metric_families(serving.metrics.text().decode()):
        for each in family.samples:
            labels = each.labels
            key = labels.get("reason") or labels.get("result") or labels.get("model") or labels.get("model_name")
            found[each.name, key] = each.value
    return found


def test_who_leaves_leaves_nothing_in_the_log(caplog):
    """Neither of what was computed then, nor of what waited."""
    worker, gate = Worker(), threading.Event()

    async def leave():
        jobs = [Job(Together(compute), None) for compute in (lambda _: [gate.wait(PATIENCE)], lambda _: [None])]
        with pytest.raises(ConnectionAbortedError):
            await worker.answers(jobs, asyncio.sleep(0.01))
        gate.set()
        await asyncio.to_thread(worker.run, gate.is_set)

    asyncio.run(leave())
    worker.close()
    gc.collect()
    assert caplog.records == []


def test_what_is_counted(folder):
    with served(folder / "classify.safetensors", folder / "exported.onnx") as serving:
        before = samples(serving)
        ask = client(serving)
        for _ in range(3):
            ask.post("/predict?model=exported", content=encoded())
        ask.post("/predict?model=exported", content=b"broken")
        text = ask.get("/metrics")
        after = samples(serving)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert after["nv_inference_request_success", "exported"] == 3
    assert ("nv_inference_request_success", "classify") not in after
    assert after["nv_inference_request_failure", "OTHER"] == 1
    assert after["nv_inference_count", "exported"] - before["nv_inference_count", "exported"] == 3
    assert after["nv_inference_pending_request_count", "exported"] == 0
    for name in ("nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us"):
        assert after[name, "exported"] > before[name, "exported"]
    for name, count in (("preprocess", 4), ("postprocess", 4)):
        assert after[f"request_{name}_seconds_count", "exported"] == count
    assert after["request_predict_seconds_sum", "exported"] > 0


def test_ready_comes_after_the_warm_up_and_goes_with_the_end(folder):
    serving = Serving([str(folder / "classify.safetensors")], Limits())
    ask = client(serving)
    assert ask.get("/v2/health/live").status_code == 200
    assert ask.get("/v2/health/ready").status_code == 503
    assert ask.get("/v2/models/classify/ready").status_code == 503
    serving.begin()
    eventually(lambda: ask.get("/v2/health/ready").status_code == 200)
    assert serving.models["classify"].loaded.together.pace > 0
    serving.ending()
    assert ask.get("/v2/health/ready").status_code == 503
    assert ask.post("/predict", content=encoded()).status_code == 200, "what is asked is answered still"
    serving.close()


def test_a_changed_file_is_loaded_and_a_broken_one_is_not(tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    old = saved(file, seed=1)
    with served(f"photos={file}") as serving:
        ask = client(serving)
        model = serving.models["photos"]

        def looks():
            model.look(serving.worker)
            model.look(serving.worker)
            return ask.post("/predict", content=encoded()).json()

        first = looks()
        assert first["probability"] == pytest.approx(old.predict(encoded()).probability, abs=1e-5)
        new = saved(file, seed=2)
        second = looks()
        assert second["version"] != first["version"]
        assert second["probability"] == pytest.approx(new.predict(encoded()).probability, abs=1e-5)
        assert f"photos is {second['version']} now" in capsys.readouterr().err
        for spoiled, says in ((b"no model", "photos stays"), (None, "its task is multilabel now")):
            if spoiled is None:
                saved(file, "multilabel")
            else:
                file.write_bytes(spoiled)
            assert looks() == second
            assert says in capsys.readouterr().err
        file.unlink()
        assert looks() == second
        counted = samples(serving)
        assert counted["vitral_reload", "loaded"] == 1
        assert counted["vitral_reload", "refused"] >= 2
        saved(file, seed=1)
        third = looks()
        assert third["version"] != second["version"]
        assert third["probability"] == pytest.approx(first["probability"], abs=1e-6)


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path):
    file = tmp_path / "model.safetensors"
    saved(file)
    with served(file) as serving:
        model = serving.models[tmp_path.name]
        before = model.loaded
        file.write_bytes(file.read_bytes()[:1000])
        model.look(serving.worker)
        assert model.loaded is before
        assert samples(serving).get(("vitral_reload", "refused")) is None


def test_two_states_of_a_model_are_never_in_one_batch(tmp_path, monkeypatch):
    """A request that was taken before the change is answered by the old state, beside requests to the new one."""
    file = tmp_path / "a.safetensors"
    old = saved(file, seed=1)
    with served(file) as serving:
        model = serving.models["a"]
        before = model.loaded
        new = saved(file, seed=2)
        for _ in range(2):
            model.look(serving.worker)
        after = model.loaded
        assert after is not before

        async def both():
            async def asked(loaded):
                return await serving.predict(model, loaded, [Picture("image", encoded())], 5, asyncio.Future())

            return await asyncio.gather(*(asked(loaded) for loaded in (before, after, before, after)))

        answers = [answer.probability for (answer,) in asyncio.run(both())]
    wanted = [made.predict(encoded()).probability for made in (old, new)]
    assert answers == pytest.approx(wanted * 2, abs=1e-5)
    assert abs(wanted[0] - wanted[1]) > 1e-3


def test_a_token_is_asked_for_but_not_for_health(all_tasks):
    ask = client(all_tasks, token="secret")
    assert ask.get("/v2/health/ready", headers={"host": "elsewhere"}).status_code == 200
    for path in ("/models", "/metrics", "/docs", "/openapi.json"):
        assert ask.get(path).status_code == 401
    refused = ask.post("/predict", content=encoded())
    assert "Authorization: Bearer" in refused.json()["error"]
    assert ask.post("/predict", content=encoded(), headers={"authorization": "Bearer secret"}).status_code == 200


def test_on_this_computer_pages_of_others_are_refused(ask):
    assert ask.post("/predict", content=encoded(), headers={"origin": "http://evil.example"}).status_code == 403
    assert ask.get("/models", headers={"host": "evil.example"}).status_code == 403


def test_the_page_of_what_can_be_asked(ask, all_tasks):
    assert ask.get("/").headers["location"] == "/docs"
    page = ask.get("/docs")
    assert "<script" not in page.text
    for path in ask.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page.text
    listed = {each["name"]: each for each in ask.get("/models").json()}
    assert set(listed) == {*TASKS, "exported"}
    assert listed["exported"]["engine"] == "onnx"
    assert listed["classify"]["image_size"] == list(SIZE)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["runs/photos"], ["photos"]),
        (["runs/photos/model.safetensors", "b.onnx"], ["photos", "b"]),
        (["cats=runs/photos", "runs/photos"], ["cats", "photos"]),
        (["my photos.onnx"], ["my-photos"]),
    ],
)
def test_models_are_called_by_their_files(given, names):
    assert [name for name, _ in models.load_all(given)] == names


@pytest.mark.parametrize("given", [["a/run", "b/run"], ["a b=x"], ["=x"]])
def test_names_that_cannot_be_are_told(given):
    with pytest.raises(VitralError, match="name"):
        models.load_all(given)


def test_a_model_in_a_folder_of_files_is_known_by_all_of_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = models.stamp(str(tmp_path)), models.digest(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    after = models.stamp(str(tmp_path)), models.digest(str(tmp_path))
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert models.digest("hf:org/name") != models.digest("hf:org/other")


def test_weights_beside_a_graph_belong_to_it(tmp_path):
    (tmp_path / "a.xml").write_text("graph")
    (tmp_path / "a.bin").write_bytes(b"weights")
    before = models.digest(str(tmp_path / "a.xml"))
    (tmp_path / "a.bin").write_bytes(b"other weights")
    assert models.digest(str(tmp_path / "a.xml")) != before
