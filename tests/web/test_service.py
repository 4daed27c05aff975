"""The HTTP service over a segmenter of ten lines."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_fakes import Halves, geotiff_bytes, picture_bytes

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

import anyio
from starlette.testclient import TestClient

from segearth.web import service
from segearth.web.asking import Asker
from segearth.web.service import build_app, models_known
from segearth.web.uploads import Limits

LIMITS = Limits(megabytes=0.2, megapixels=0.1)


def client_of(segmenter: Any, limits: Limits = LIMITS) -> TestClient:
    known = models_known(segmenter, "halves")
    return TestClient(build_app(Asker(segmenter, "halves"), limits, known), raise_server_exceptions=False)


@pytest.fixture
def segmenter() -> Halves:
    return Halves()


@pytest.fixture
def client(segmenter: Halves) -> TestClient:
    return client_of(segmenter)


def post(client: TestClient, content: bytes, name: str = "a.png", path: str = "/segment", **fields: Any) -> Any:
    return client.post(path, files={"file": (name, content)}, data={"prompt": "left", **fields})


def test_health_and_models(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "ok"
    models = client.get("/models").json()
    assert models["loaded"] == [{"name": "halves", "protocol": "native", "side": None, "device": "cpu"}]
    assert "segearth_tiny" in models["models"]


def test_a_named_model_tells_its_card() -> None:
    (loaded,) = models_known(Halves(), "segearth_tiny")["loaded"]
    assert loaded["licence"] == "Apache-2.0" and "aerial_mini train" in loaded["trained_on"]


def test_the_schema_describes_the_form(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/health", "/models", "/segment"}
    (form,) = (part for name, part in schema["components"]["schemas"].items() if name.startswith("Body_segment"))
    assert set(form["properties"]) == {"file", "prompt", "output_format", "task", "answer"}
    assert set(form["required"]) == {"file", "prompt"}
    assert {"413", "415", "422", "503"} <= set(schema["paths"]["/segment"]["post"]["responses"])


def test_a_png_is_the_mask(client: TestClient) -> None:
    answer = post(client, picture_bytes(), output_format="png")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert mask.shape == (48, 64) and mask[:, :32].min() == 255 and mask[:, 32:].max() == 0


def test_boxes_of_several_questions(client: TestClient) -> None:
    found = post(
        client, picture_bytes(), output_format="json", prompt=["corners", "nothing", " right "], answer=True
    ).json()
    assert (found["image_width"], found["image_height"], found["num_detections"]) == (64, 48, 3)
    assert [(each["question"], each["bbox"], each["area_px"]) for each in found["detections"]] == [
        ("corners", [0, 0, 16, 12], 192), ("corners", [56, 42, 64, 48], 48), ("right", [32, 0, 64, 48], 1536),
    ]  # fmt: skip
    assert [each["id"] for each in found["detections"]] == [1, 2, 3]
    assert found["detections"][0]["width"] == 16 and found["detections"][0]["score"] == 0.75
    assert [(each["present"], each["regions"], each["answer"]) for each in found["answers"]] == [
        (True, 2, "mean 100"), (False, 0, "mean 100"), (True, 1, "mean 100"),
    ]  # fmt: skip


def test_samgeo_s_path_and_fields_work(client: TestClient) -> None:
    assert post(client, picture_bytes(), path="/segment/text", output_format="png").status_code == 200


@pytest.mark.parametrize(
    ("content", "fields", "status", "said"),
    [
        (b"", {}, 415, "the upload is empty; send one of JPEG"),
        (b"%PDF-1.7 and so on", {}, 415, "no picture of a known kind"),
        (b"RIFF\0\0\0\0WAVE", {}, 415, "no picture of a known kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 415, "no picture of a known kind"),
        (picture_bytes()[:60], {}, 422, "a.png: damaged"),
        (picture_bytes(format_="JPEG")[:300], {}, 422, "cannot be decoded as JPEG"),
        (b"\xff\xd8\xff" + b"\0" * 50, {}, 422, "cannot be decoded as JPEG"),
        (picture_bytes(size=(400, 400)), {}, 413, "400x400 pixels, 0.1 million are taken"),
        (b"\xff\xd8\xff" + b"\0" * 300_000, {}, 413, "larger than the 0.2 MB that are taken"),
        (picture_bytes(), {"prompt": "  "}, 422, "a question is empty; write what to look for"),
        (picture_bytes(), {"prompt": "x" * 501}, 422, "501 letters, at most 500"),
        (picture_bytes(), {"prompt": ["x"] * 17}, 422, "17 questions at once, at most 16"),
        (picture_bytes(), {"output_format": "gif"}, 422, "unknown output_format 'gif'"),
        (picture_bytes(), {"task": "referrring"}, 422, "did you mean 'referring'"),
        (picture_bytes(), {"task": "caption"}, 422, "unknown task 'caption'"),
        (picture_bytes(), {"answer": "perhaps"}, 422, "form field 'answer'"),
        (picture_bytes(), {"prompt": ["left", "right"], "output_format": "png"}, 422, "a PNG holds one mask"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_answered_with_what_to_do(
    client: TestClient, segmenter: Halves, content: bytes, fields: dict[str, Any], status: int, said: str
) -> None:
    answer = post(client, content, **fields)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail"} and said in answer.json()["detail"]
    assert segmenter.images == []  # nothing of it reached the model


def test_a_form_without_file_or_prompt(client: TestClient) -> None:
    answer = client.post("/segment", data={"output_format": "png"})
    assert answer.status_code == 422
    assert "'file': Field required; form field 'prompt': Field required. Send" in answer.json()["detail"]
    assert client.post("/segment", json={"prompt": "left"}).status_code == 422


def test_a_body_that_does_not_say_its_length_is_stopped_while_it_is_read(segmenter: Halves) -> None:
    """What is read of it is what is taken, and little more."""
    app = build_app(Asker(segmenter, "halves"), LIMITS, {})
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    read, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1 << 16
        more = read < 20_000_000  # it would never end, but the test shall
        return {"type": "http.request", "body": head if read == 1 << 16 else b"\0" * (1 << 16), "more_body": more}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/segment", "raw_path": b"/segment",
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80), "client": ("localhost", 9),
        "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
    }  # fmt: skip
    anyio.run(app, scope, receive, send)
    assert sent[0]["status"] == 413 and b"larger than the 0.2 MB" in sent[1]["body"]
    assert read < LIMITS.bytes + service.FORM_BYTES + 3 * (1 << 16)


def test_a_length_over_the_limit_is_refused_before_anything_is_read(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "99000000"}
    answer = client.post("/segment", content=b"--b", headers=headers)
    assert answer.status_code == 413


def test_users_wait_for_each_other_and_are_never_mixed_up() -> None:
    segmenter = Halves(seconds=0.01)
    client = client_of(segmenter)

    def ask(colour: int) -> str:
        found = post(client, picture_bytes(colour), output_format="json", answer=True).json()
        return str(found["answers"][0]["answer"])

    with client, ThreadPoolExecutor(8) as threads:
        said = list(threads.map(ask, range(10, 34)))
    assert said == [f"mean {colour}" for colour in range(10, 34)]
    assert segmenter.at_once == 1


def test_the_same_picture_is_encoded_once(client: TestClient, segmenter: Halves) -> None:
    for prompt in ("left", "right"):
        assert post(client, picture_bytes(7), prompt=prompt).status_code == 200
    assert post(client, picture_bytes(8)).status_code == 200
    assert post(client, picture_bytes(7)).status_code == 200
    assert segmenter.images == [7, 8, 7]


def test_after_a_picture_that_fails_none_is_set(client: TestClient, segmenter: Halves) -> None:
    right = segmenter.set_images
    post(client, picture_bytes(7))

    def fails(images: Any) -> None:
        segmenter._image = np.asarray(images[0])
        raise MemoryError

    segmenter.set_images = fails  # type: ignore[method-assign]
    answer = post(client, picture_bytes(8))
    assert answer.status_code == 500 and "in its log" in answer.json()["detail"]
    segmenter.set_images = right  # type: ignore[method-assign]
    found = post(client, picture_bytes(7), output_format="json", answer=True).json()
    assert found["answers"][0]["answer"] == "mean 7"


def test_too_many_who_wait_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_WAITING", 1)
    segmenter, started, go_on = Halves(), threading.Event(), threading.Event()
    right: Callable[[Any], None] = segmenter.set_images

    def waits(images: Any) -> None:
        started.set()
        assert go_on.wait(20)
        right(images)

    segmenter.set_images = waits  # type: ignore[method-assign]
    with client_of(segmenter) as client, ThreadPoolExecutor(8) as threads:
        first = threads.submit(post, client, picture_bytes(1))
        assert started.wait(20)
        others = [threads.submit(post, client, picture_bytes(2)) for _ in range(4)]
        end = time.monotonic() + 10
        while sum(each.done() for each in others) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        go_on.set()
        answers = [each.result() for each in others]
        assert first.result().status_code == 200
        assert [post(client, picture_bytes(2)).status_code for _ in range(4)] == [200] * 4  # nobody waits any more
    assert sorted(each.status_code for each in answers) == [200, 503, 503, 503]
    refused = next(each for each in answers if each.status_code == 503)
    assert refused.headers["retry-after"] == "60" and "ask again" in refused.json()["detail"]


def test_of_too_many_not_even_the_body_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_WAITING", -1)  # as if one were worked on and all places taken
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is read")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def inner(*arguments: Any) -> None:
        raise AssertionError("the request is worked on")

    body = service.LimitedBody(inner, Limits())
    anyio.run(body, {"type": "http", "method": "POST", "headers": []}, receive, send)
    assert sent[0]["status"] == 503 and (b"retry-after", b"60") in sent[0]["headers"]


def test_outlines_are_in_the_scene_s_own_coordinates(client: TestClient) -> None:
    pytest.importorskip("geopandas")
    answer = post(client, geotiff_bytes(), "scene.tif", prompt=["corners", "nothing"])
    assert answer.headers["content-type"] == "application/geo+json"
    found = answer.json()
    assert found["type"] == "FeatureCollection"
    assert found["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32614"
    first, second = found["features"]
    # 16 x 12 pixels of 2 m at the upper left corner (500000, 4000000), and 8 x 6 at the lower right one.
    ring = first["geometry"]["coordinates"][0]
    assert {tuple(point) for point in ring} == {
        (500_000, 4_000_000), (500_032, 4_000_000), (500_032, 3_999_976), (500_000, 3_999_976),
    }  # fmt: skip
    facts = first["properties"]
    assert (facts["area"], facts["area_unit"], facts["region"], facts["score"]) == (768, "m2", 1, 0.75)
    assert (facts["question"], facts["source"], facts["model"]) == ("corners", "scene.tif", "halves")
    assert second["properties"]["region"] == 2 and second["properties"]["area"] == 192
    assert min(second["geometry"]["coordinates"][0]) == [500_112, 3_999_904]
    assert [each["present"] for each in found["answers"]] == [True, False]


def test_outlines_of_a_plain_picture_are_in_pixels(client: TestClient) -> None:
    pytest.importorskip("geopandas")
    found = post(client, picture_bytes()).json()
    assert "crs" not in found
    (feature,) = found["features"]
    assert feature["properties"]["area"] == 1536 and feature["properties"]["area_unit"] == "pixels"
    assert {tuple(point) for point in feature["geometry"]["coordinates"][0]} == {(0, 0), (32, 0), (32, 48), (0, 48)}
    nothing = post(client, picture_bytes(), prompt="nothing").json()
    assert nothing["features"] == [] and nothing["answers"][0]["present"] is False


def test_a_geotiff_out_has_the_grid_that_went_in(client: TestClient) -> None:
    rasterio = pytest.importorskip("rasterio")
    turned = rasterio.Affine(1.5, 0.5, 500_000, 0.5, -1.5, 4_000_000)
    content = geotiff_bytes(transform=turned, dtype="uint16", count=4, size=(80, 40))
    answer = post(client, content, "scene.tif", output_format="geotiff", prompt=["left", "nothing"])
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/tiff"
    with rasterio.MemoryFile(answer.content) as memory, memory.open() as file:
        assert (file.width, file.height, file.count, file.dtypes[0]) == (80, 40, 2, "uint8")
        assert file.transform == turned and file.crs.to_epsg() == 32614
        assert file.descriptions == ("left", "nothing")
        assert file.tags(1) == {"model": "halves", "presence": "0.9", "score": "0.75"}
        left, nothing = file.read()
    assert left[:, :40].min() == 255 and left[:, 40:].max() == 0 and nothing.max() == 0
    plain = post(client, picture_bytes(), output_format="geotiff").content
    with rasterio.MemoryFile(plain) as memory, memory.open() as file:
        assert file.crs is None and (file.width, file.height) == (64, 48)


def test_sixteen_bits_are_stretched_and_not_cut(client: TestClient) -> None:
    pytest.importorskip("rasterio")
    found = post(
        client, geotiff_bytes(3000, dtype="uint16"), "scene.tif", output_format="json", prompt="left", answer=True
    ).json()
    assert 110 < int(found["answers"][0]["answer"].split()[1]) < 145  # a ramp, spread from 0 to 255


def test_where_there_is_no_data_nothing_is_found(client: TestClient) -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.MemoryFile() as memory:
        profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 3, "dtype": "uint8", "nodata": 0}
        with memory.open(**profile, crs="EPSG:32614", transform=rasterio.Affine(2, 0, 0, 0, -2, 0)) as file:
            values = np.full((3, 48, 64), 90, np.uint8)
            values[:, :, :16] = 0
            file.write(values)
        content = memory.read()
    found = post(client, content, "scene.tif", output_format="json", prompt=["left", "corners"]).json()
    assert [each["bbox"] for each in found["detections"]] == [[16, 0, 32, 48], [56, 42, 64, 48]]
    assert [each["area_px"] for each in found["answers"]] == [16 * 48, 48]


@pytest.mark.parametrize("kind", ["cut", "header", "control points"])
def test_tiffs_that_cannot_be_used(client: TestClient, segmenter: Halves, kind: str) -> None:
    rasterio = pytest.importorskip("rasterio")
    content, said = {
        "cut": (geotiff_bytes(size=(200, 200))[:3000], "a.tif cannot be decoded as TIFF; save it anew"),
        "header": (b"II*\0" + bytes(300), "a.tif cannot be decoded as TIFF; save it anew"),
        "control points": (b"", "a.tif has ground control points and no regular grid"),
    }[kind]
    if not content:
        points = [rasterio.control.GroundControlPoint(row, col, col, -row) for row, col in ((0, 0), (0, 9), (9, 0))]
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", width=64, height=48, count=3, dtype="uint8") as file:
                file.gcps = (points, rasterio.CRS.from_epsg(4326))
            content = memory.read()
    answer = post(client, content, "folder/a.tif")
    assert answer.status_code == 422 and said in answer.json()["detail"], answer.text
    assert "vsimem" not in answer.text and segmenter.images == []


def test_a_huge_geotiff_in_a_small_file_is_refused_by_its_header(client: TestClient) -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=3000, height=3000, count=3, dtype="uint8", tiled=True, sparse_ok=True):
            pass
        content = memory.read()
    answer = post(client_of(Halves(), Limits(megapixels=8)), content, "a.tif")
    assert answer.status_code == 413 and "3000x3000 pixels" in answer.json()["detail"]


def test_without_the_packages_for_maps_the_error_names_them(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rasterio")
    scene = geotiff_bytes()
    monkeypatch.setitem(sys.modules, "rasterio", None)
    answer = post(client, scene, "a.tif", output_format="png")
    assert answer.status_code == 501 and "segearth[geo]" in answer.json()["detail"]
    assert post(client, picture_bytes(format_="TIFF"), "a.tif", output_format="png").status_code == 200
