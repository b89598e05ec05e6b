"""The encoder: the same numbers as Ultralytics, the bundled model, and which files it may load."""

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from torchvision import transforms

from errors import EncoderError
from features import checkpoints, timm_models
from features import encoder as encoder_module
from features.encoder import Encoder, get_encoder
from tests.checkpoints import (
    cosine,
    ultralytics_classification,
    ultralytics_embedding,
    write_checkpoint,
    write_timm_weights,
)
from tests.videos import write_video
from video.preprocessing import View, resize_and_crop, resize_whole, whole_size
from video.reader import Frame, decode

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODEL_ROOT with a classifier in it."""
    root = tmp_path_factory.mktemp("models")
    write_checkpoint(root / "yolov8n-cls.pt")
    return root


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are refused at once, and none is remembered from another test."""
    monkeypatch.setattr(checkpoints, "DOWNLOAD_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(timm_models, "HUB_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(checkpoints, "_failed_downloads", {})


def scene(size: tuple[int, int], seed: int = 0):
    """Draws coloured rectangles that move, differently fast."""
    width, height = size
    generator = np.random.default_rng(seed)
    corners = generator.random((12, 2)) * (width, height)
    speeds = generator.normal(0, width / 20, (12, 2))
    colours = generator.integers(0, 256, (12, 3))

    def draw(index: int) -> np.ndarray:
        image = np.full((height, width, 3), 90, np.uint8)
        for corner, speed, colour in zip(corners, speeds, colours, strict=True):
            x, y = ((corner + index * speed) % (width, height)).astype(int)
            image[y : y + height // 3, x : x + width // 3] = colour
        return image

    return draw


def encode(encoder: Encoder, video: Path, view: View = View.CROP) -> tuple[np.ndarray, np.ndarray]:
    """Features and probabilities of a view of all frames."""
    batch = encoder.preprocess(list(decode(video)), view)
    return encoder.features(batch), encoder.probabilities(batch)


def write_marked_video(path: Path, colour_space: int, colour_range: int, pixel_format: str) -> Path:
    """A video that declares its colour space and range."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = colour_space, colour_range
        draw = scene((320, 180))
        for index in range(3):
            picture = av.VideoFrame.from_ndarray(draw(index), format="rgb24").reformat(format=pixel_format)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


# --- The same numbers as Ultralytics


@pytest.mark.parametrize(
    ("architecture", "image_size", "size"),
    [
        ("yolov8n-cls", 224, (640, 272)),
        ("yolov8n-cls", 96, (120, 202)),
        ("yolov8n-cls", 160, (96, 64)),
        ("yolo11n-cls", 96, (320, 180)),
        ("yolo26n-cls", 100, (320, 180)),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_classifiers_equal_ultralytics(tmp_path, architecture, image_size, size):
    checkpoint = write_checkpoint(tmp_path / "model.pt", architecture, image_size=image_size)
    video = write_video(tmp_path / "video.mp4", scene(size), 6, size=size)
    expected_features, expected_probs = ultralytics_classification(checkpoint, video)
    assert cosine(expected_features[1:], expected_features[:-1]).max() < 0.995  # it does tell frames apart

    features, probs = encode(get_encoder("model.pt", model_root=tmp_path, precision="fp32"), video)
    assert features.dtype == probs.dtype == np.float32
    assert features.shape == (6, 1280)
    np.testing.assert_allclose(features, expected_features, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(probs, expected_probs, atol=1e-4)

    features, _ = encode(get_encoder("model.pt", model_root=tmp_path, precision="bf16"), video)
    assert cosine(features, expected_features).min() >= 0.997


@pytest.mark.parametrize("size", [(640, 272), (120, 202), (64, 64), (97, 131), (1280, 720)])
@pytest.mark.parametrize(
    "steps",
    [
        (transforms.Resize(224), transforms.CenterCrop((224, 224))),
        (transforms.Resize((96, 160)), transforms.CenterCrop((96, 160))),
        (transforms.Resize(100, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop((128, 128))),
    ],
    ids=["as trained", "not square", "crop larger"],
)
def test_pictures_equal_torchvisions(size, steps):
    picture = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    rgba = np.pad(picture, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    expected = np.asarray(transforms.Compose(steps)(Image.fromarray(picture)))
    arguments = (steps[0].size, steps[1].size, steps[0].interpolation)
    np.testing.assert_array_equal(resize_and_crop(*arguments, exact=True)(rgba), expected)
    fast = resize_and_crop(*arguments, exact=False)(rgba).astype(int)
    assert np.abs(fast - expected).max() <= 2
    assert np.abs(fast - expected).mean() < 0.3  # where one direction grows and the other shrinks; else 0.01


# --- The whole picture


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (160, 288)),
        ((720, 1280), (288, 160)),
        ((640, 480), (192, 256)),
        ((224, 224), (224, 224)),
        ((5000, 5000), (224, 224)),
    ],
)
def test_the_size_of_the_whole_picture(size, expected):
    assert whole_size(*size, area=224 * 224, multiple=32) == expected


@pytest.mark.parametrize(("side", "multiple"), [(224, 14), (224, 16), (224, 32), (518, 14), (640, 32)])
def test_the_whole_picture_keeps_its_shape_and_the_number_of_pixels(side, multiple):
    for width in range(400, 2500, 47):
        rows, columns = whole_size(width, 1000, side**2, multiple)
        assert rows % multiple == columns % multiple == 0
        assert 0.75 * side**2 <= rows * columns <= 1.05 * side**2
        # rounding moves a side by half of the multiple at most, and the other side as much the other way
        assert abs(np.log(columns / rows / (width / 1000))) <= 2 * np.log1p(multiple / 2 / min(rows, columns))


def test_the_whole_picture_of_extreme_shapes():
    assert whole_size(10_000, 10, area=224 * 224, multiple=32)[0] == 32
    assert whole_size(2, 2, area=16 * 16, multiple=32) == (32, 32)


def test_the_whole_picture_shows_its_edges_and_is_antialiased():
    transform = resize_whole(224 * 224, 32, transforms.InterpolationMode.BILINEAR)
    stripes = np.zeros((720, 1280, 4), np.uint8)
    stripes[:, ::2] = 255  # finer than any pixel of the result
    assert np.abs(transform(stripes)[:, 2:-2].astype(int) - 127).max() <= 10  # and neither 0 nor 255
    marked = np.zeros((720, 1280, 4), np.uint8)
    marked[:8, :8] = (255, 0, 0, 255)
    marked[-8:, -8:] = (0, 0, 255, 255)
    picture = transform(marked)
    assert picture.shape == (160, 288, 3)
    assert picture[0, 0, 0] > 200
    assert picture[-1, -1, 2] > 200
    assert picture[:, :, 1].max() == 0
    expected = np.asarray(Image.fromarray(marked[..., :3]).resize((288, 160), Image.Resampling.BILINEAR))
    assert np.abs(picture.astype(int) - expected).max() <= 2


def test_what_happens_at_the_edge_of_a_wide_picture_shows_in_the_features(bundled, tmp_path):
    def at_the_edge(index: int) -> np.ndarray:
        picture = scene((640, 272))(0)
        picture[100:170, :40] = (250, 40, 40) if index else (40, 40, 250)
        return picture

    video = write_video(tmp_path / "video.mp4", at_the_edge, 2, size=(640, 272), options={"crf": "0"})
    whole, _ = encode(bundled, video, View.WHOLE)
    crop, _ = encode(bundled, video, View.CROP)
    assert cosine(whole[:1], whole[1:]) < 0.998
    assert cosine(crop[:1], crop[1:]) > 0.99999


# --- Other tasks, own transforms, colours


@pytest.mark.parametrize("architecture", ["yolov8n", "yolov8n-seg", "yolov8n-pose", "yolo26n"])
def test_other_tasks_give_the_pooled_feature_map_before_the_head(tmp_path, architecture):
    checkpoint = write_checkpoint(tmp_path / "model.pt", architecture, image_size=128)
    video = write_video(tmp_path / "video.mp4", scene((320, 180)), 4, size=(320, 180))
    encoder = get_encoder("model.pt", model_root=tmp_path, precision="fp32")
    features, probs = encode(encoder, video)
    assert cosine(features, ultralytics_embedding(checkpoint, video)).min() >= 0.9999
    assert features.shape == (4, encoder.feature_dim)
    assert probs.shape == (4, 0)
    assert encoder.class_names == {}
    assert encoder.num_classes == 0


def test_a_checkpoints_own_transforms_are_used(tmp_path):
    steps = [
        transforms.Resize(160, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(160),
        transforms.ToTensor(),
        transforms.Normalize(mean=torch.tensor([0.485, 0.456, 0.406]), std=torch.tensor([0.229, 0.224, 0.225])),
    ]
    video = write_video(tmp_path / "video.mp4", scene((320, 180)), 4, size=(320, 180))
    plain = write_checkpoint(tmp_path / "plain.pt", image_size=160)
    checkpoint = write_checkpoint(tmp_path / "model.pt", image_size=160, transforms=transforms.Compose(steps))
    expected, _ = ultralytics_classification(checkpoint, video)
    features, _ = encode(get_encoder("model.pt", model_root=tmp_path, precision="fp32"), video)
    assert cosine(features, expected).min() >= 0.9999
    assert cosine(features, ultralytics_classification(plain, video)[0]).max() < 0.9999


@pytest.mark.parametrize(
    ("colour_space", "colour_range", "pixel_format"),
    [(1, 1, "yuv420p"), (5, 1, "yuv420p"), (1, 2, "yuvj420p"), (2, 0, "yuv422p"), (2, 0, "yuv444p")],
    ids=["bt709", "bt601", "full-range", "4:2:2", "4:4:4"],
)
def test_colours_are_ultralytics_whatever_the_file_declares(models, tmp_path, colour_space, colour_range, pixel_format):
    video = write_marked_video(tmp_path / "video.mp4", colour_space, colour_range, pixel_format)
    features, probs = encode(get_encoder("yolov8n-cls.pt", model_root=models, precision="fp32"), video)
    expected_features, expected_probs = ultralytics_classification(models / "yolov8n-cls.pt", video)
    np.testing.assert_allclose(features, expected_features, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(probs, expected_probs, atol=1e-4)


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_are_seen_upright(models, tmp_path, rotation, view):
    lossless = {"size": (200, 120), "pixel_format": "yuv444p", "options": {"crf": "0"}}
    upright = write_video(tmp_path / "upright.mp4", scene((200, 120)), 3, **lossless)
    rotated = write_video(tmp_path / "rotated.mp4", scene((200, 120)), 3, **lossless, rotation=rotation)
    encoder = get_encoder("yolov8n-cls.pt", model_root=models, precision="fp32")
    expected, _ = encode(encoder, upright, view)
    features, _ = encode(encoder, rotated, view)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)
    sideways = [frame._replace(rotation=0) for frame in decode(rotated)]
    assert cosine(encoder.features(encoder.preprocess(sideways, view)), expected).max() < 0.995


@pytest.mark.parametrize("view", View)
def test_the_same_frame_always_gives_the_same_picture(models, tmp_path, view):
    video = write_video(tmp_path / "video.mp4", scene((120, 200)), 1, size=(120, 200))  # rows end inside a vector
    encoder = get_encoder("yolov8n-cls.pt", model_root=models)
    frames = list(decode(video)) * 100
    pictures = encoder.preprocess(frames, view).numpy()
    assert (pictures == pictures[0]).all()


# --- The bundled encoder


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """What takes the default model's place in an empty MODEL_ROOT without internet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "DOWNLOAD_HOST", "http://127.0.0.1:9")
        patch.setattr(checkpoints, "_failed_downloads", {})
        return get_encoder(None, model_root=tmp_path_factory.mktemp("empty"), precision="fp32")


@pytest.mark.parametrize(("photo", "expected"), [("china.jpg", "palace"), ("flower.jpg", "daisy")])
def test_the_bundled_encoder_recognises_photos(bundled, photo, expected):
    picture = av.VideoFrame.from_ndarray(load_sample_image(photo), format="rgb24")
    probs = bundled.probabilities(bundled.preprocess([Frame(0.0, picture, 0)], View.CROP))
    assert bundled.class_names[int(probs[0].argmax())] == expected
    assert probs[0].sum() == pytest.approx(1, abs=1e-5)


def test_the_bundled_encoder_says_what_it_is(bundled):
    assert bundled.is_fallback
    assert bundled.name == "efficientnet-lite0"
    assert bundled.feature_dim == 1280
    assert bundled.num_classes == len(bundled.class_names) == 1000
    assert bundled.class_names[0] == "tench"
    assert bundled.class_names[805] == "soccer_ball"
    assert bundled.class_names[999] == "toilet_tissue"


@pytest.mark.parametrize("view", View)
def test_the_bundled_encoder_in_bfloat16(bundled, view):
    half = Encoder(bundled._path, torch.device("cpu"), "bf16", is_fallback=True)
    frames = [Frame(0.0, av.VideoFrame.from_ndarray(scene((320, 240))(index), format="rgb24"), 0) for index in range(6)]
    batch = bundled.preprocess(frames, view)
    assert cosine(half.features(batch), bundled.features(batch)).min() >= 0.997


def test_the_faster_operations_are_no_less_exact(models, tmp_path, monkeypatch):
    video = write_video(tmp_path / "video.mp4", scene((320, 240)), 6, size=(320, 240))
    path = models / "yolov8n-cls.pt"
    exact, _ = encode(Encoder(path, torch.device("cpu"), "fp32"), video)
    fast, _ = encode(Encoder(path, torch.device("cpu"), "bf16"), video)
    replaced = []
    monkeypatch.setattr(encoder_module, "speed_up", replaced.append)
    plain, _ = encode(Encoder(path, torch.device("cpu"), "bf16"), video)
    assert len(replaced) == torch.ops.mkldnn._is_mkldnn_bf16_supported()  # elsewhere, both are the plain ones
    assert np.abs(fast - exact).mean() <= 1.05 * np.abs(plain - exact).mean()


def test_without_fallback_the_default_model_must_be_there(tmp_path):
    with pytest.raises(EncoderError, match=f"yolov8n-cls.pt could not be downloaded. .*{tmp_path}"):
        get_encoder(None, model_root=tmp_path, fallback=False)


def test_only_the_default_model_has_a_fallback(tmp_path):
    assert get_encoder("yolov8n-cls.pt", model_root=tmp_path).is_fallback
    with pytest.raises(EncoderError, match=r"yolo11n-cls\.pt could not be downloaded"):
        get_encoder("yolo11n-cls.pt", model_root=tmp_path)


def test_a_file_in_model_root_is_no_fallback(models):
    encoder = get_encoder(None, model_root=models)
    assert not encoder.is_fallback
    assert encoder.name == "yolov8n-cls"


# --- Downloads


def test_a_download_that_hangs_fails_soon_and_is_not_tried_again(tmp_path, monkeypatch, silent_server):
    url, connections = silent_server
    monkeypatch.setattr(checkpoints, "DOWNLOAD_HOST", url)
    monkeypatch.setattr(checkpoints, "PROBE_TIMEOUT", 0.5)
    with pytest.raises(EncoderError, match="could not be downloaded"):
        get_encoder("yolo11n-cls.pt", model_root=tmp_path)
    assert len(connections) == 1
    with pytest.raises(EncoderError, match="a short while ago"):
        get_encoder("yolo11n-cls.pt", model_root=tmp_path)
    assert len(connections) == 1
    monkeypatch.setattr(checkpoints, "DOWNLOAD_RETRY_AFTER", 0.0)
    with pytest.raises(EncoderError, match="could not be downloaded"):
        get_encoder("yolo11n-cls.pt", model_root=tmp_path)
    assert len(connections) == 2


def test_a_file_put_into_model_root_after_a_failed_download_is_taken(models, tmp_path):
    assert get_encoder(None, model_root=tmp_path).is_fallback
    shutil.copy(models / "yolov8n-cls.pt", tmp_path)
    assert not get_encoder(None, model_root=tmp_path).is_fallback


def test_an_official_model_is_downloaded_into_model_root(models, tmp_path, monkeypatch):
    import ultralytics.utils.downloads

    def download(path: Path, **_: object) -> str:
        return shutil.copy(models / "yolov8n-cls.pt", path)

    monkeypatch.setattr(checkpoints, "_probe", lambda url: None)
    monkeypatch.setattr(ultralytics.utils.downloads, "attempt_download_asset", download)
    encoder = get_encoder("yolov8s-cls.pt", model_root=tmp_path)
    assert encoder.name == "yolov8s-cls"
    assert encoder.feature_dim == 1280
    assert [path.name for path in tmp_path.iterdir()] == ["yolov8s-cls.pt"]


# --- timm

CNN, VIT = "resnet10t.c3_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture(scope="session")
def timm_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODEL_ROOT with a convolutional network and one of tokens, of seeded random weights."""
    root = tmp_path_factory.mktemp("timm")
    for name in (CNN, VIT):
        write_timm_weights(root, name)
    return root


@pytest.mark.parametrize("name", [CNN, VIT])
def test_a_timm_model_gives_what_its_own_last_layer_reads(timm_root, tmp_path, name):
    video = write_video(tmp_path / "video.mp4", scene((320, 240)), 4, size=(320, 240))
    encoder = get_encoder(f"timm/{name}", model_root=timm_root, precision="fp32")
    features, probs = encode(encoder, video, View.WHOLE)

    sizes = {"dynamic_img_size": True} if name == VIT else {}
    model = timm.create_model(name, pretrained=False, num_classes=0, **sizes)
    weights = load_file(timm_root / f"{name}.safetensors")
    model.load_state_dict({key: value for key, value in weights.items() if key in model.state_dict()})
    config = timm.data.resolve_model_data_config(model)
    area = config["input_size"][1] * config["input_size"][2]
    size = whole_size(320, 240, area, 16 if name == VIT else 32)
    pictures = [Image.fromarray(frame.picture.to_ndarray(format="rgb24")) for frame in decode(video)]
    resize = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode(config["interpolation"])),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )
    with torch.inference_mode():
        expected = model.eval()(torch.stack([resize(picture) for picture in pictures])).numpy()
    assert features.shape == expected.shape == (4, encoder.feature_dim)
    mean = expected.mean(axis=0)
    assert cosine(features - mean, expected - mean).min() >= 0.95  # in what tells the frames apart
    assert cosine(features, expected).min() >= 0.9999
    assert probs.shape == (4, 0)
    assert encoder.class_names == {}
    assert encoder.name == name

    half = get_encoder(f"timm/{name}", model_root=timm_root, precision="bf16")
    assert half.fingerprint != encoder.fingerprint
    assert cosine(encode(half, video, View.WHOLE)[0], expected).min() >= 0.99


def test_without_ultralytics_there_are_timms_models_and_the_bundled_encoder(timm_root, tmp_path):
    video = write_video(tmp_path / "video.mp4", scene((160, 120)), 3, size=(160, 120))
    program = f"""
        import sys
        from pathlib import Path
        import model

        assert "ultralytics" not in sys.modules
        sys.modules["ultralytics"] = None  # as where it isn't installed
        from features.encoder import get_encoder
        from features.cache import FeatureCache

        encoder = get_encoder("timm/{VIT}", model_root=Path({str(timm_root)!r}))
        print(FeatureCache({str(tmp_path / "cache")!r}, 10**9).get(encoder, {str(video)!r}).features.shape)
        encoder = get_encoder(None, model_root=Path({str(tmp_path)!r}))
        print(encoder.is_fallback, encoder.class_names[805], encoder.feature_dim)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[:2] == ["(3, 192)", "True soccer_ball 1280"]


def test_the_bundled_encoders_classes_are_named_as_ultralytics_names_them(bundled):
    checkpoints.import_ultralytics()
    from ultralytics.utils import ROOT, YAML

    name_of_id = YAML.load(ROOT / "cfg/datasets/ImageNet.yaml")["map"]
    assert list(bundled.class_names.values()) == [name_of_id[wordnet_id] for wordnet_id in sorted(name_of_id)]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a.b.c", "hf-hub:x", "a b"])
def test_names_that_are_no_names_of_timms_models(tmp_path, name):
    with pytest.raises(EncoderError, match="is not allowed"):
        get_encoder(f"timm/{name}", model_root=tmp_path)


def test_a_symbolic_link_of_weights_must_not_lead_out(timm_root, tmp_path):
    (tmp_path / f"{CNN}.safetensors").symlink_to(timm_root / f"{CNN}.safetensors")
    with pytest.raises(EncoderError, match="leads out of MODEL_ROOT"):
        get_encoder(f"timm/{CNN}", model_root=tmp_path)


@pytest.mark.parametrize("name", ["no_such_network", "resnet18.no_such_weights"])
def test_models_that_timm_does_not_know(tmp_path, name):
    with pytest.raises(EncoderError, match=rf"timm .*{name}"):
        get_encoder(f"timm/{name}", model_root=tmp_path)


def test_weights_that_do_not_fit_are_named(timm_root, tmp_path):
    shutil.copy(timm_root / f"{CNN}.safetensors", tmp_path / f"{VIT}.safetensors")
    (tmp_path / f"{CNN}.safetensors").write_bytes(b"not a model")
    for name in (CNN, VIT):
        with pytest.raises(EncoderError, match=rf"{name}.safetensors in MODEL_ROOT can't be loaded"):
            get_encoder(f"timm/{name}", model_root=tmp_path).feature_dim  # noqa: B018


def test_a_model_of_one_picture_size_is_refused(tmp_path):
    name = "mixer_s16_224"
    save_file(timm.create_model(name, pretrained=False).state_dict(), tmp_path / f"{name}.safetensors")
    with pytest.raises(EncoderError, match="one size only"):
        get_encoder(f"timm/{name}", model_root=tmp_path).feature_dim  # noqa: B018


@pytest.fixture
def hub(timm_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server in place of timm's hub, which has the convolutional network: the paths that it was asked for."""
    asked = []
    content = (timm_root / f"{CNN}.safetensors").read_bytes()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            asked.append(self.path)
            cut = "vit" in self.path  # this one breaks off
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:1000] if cut else content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(timm_models, "HUB_HOST", f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


def test_weights_are_downloaded_from_the_hub_once(hub, timm_root, tmp_path):
    root = tmp_path / "models"
    encoder = get_encoder(f"timm/{CNN}", model_root=root, precision="fp32")
    assert encoder.feature_dim == 512
    assert hub == [f"/timm/{CNN}/resolve/main/model.safetensors"]
    assert get_encoder(f"timm/{CNN}", model_root=root, precision="fp32") is encoder
    assert [path.name for path in root.iterdir()] == [f"{CNN}.safetensors"]
    with pytest.raises(EncoderError, match="could not be downloaded"):
        get_encoder(f"timm/{VIT}", model_root=root)
    assert [path.name for path in root.iterdir()] == [f"{CNN}.safetensors"]
    assert len(hub) == 2


def test_without_internet_timms_weights_fail_soon(tmp_path):
    for message in (rf"{CNN}.safetensors could not be downloaded\. Put the file into MODEL_ROOT", "a short while ago"):
        with pytest.raises(EncoderError, match=message):
            get_encoder(f"timm/{CNN}", model_root=tmp_path)


# --- Which files


@pytest.mark.parametrize(
    "name",
    [
        *("../model.pt", "/etc/model.pt", "folder/model.pt", "C:\\model.pt", "..\\model.pt", "..", ""),
        *("http://example.com/model.pt", "https://example.com/model.pt", "ul://user/project/model.pt", "rtsp:model.pt"),
        *("model", "model.onnx", "model.engine"),
    ],
)
def test_names_that_are_no_names_of_checkpoints(tmp_path, name):
    write_checkpoint(tmp_path / "model.pt", "yolov8n-cls")
    (tmp_path / "root" / "folder").mkdir(parents=True)
    shutil.copy(tmp_path / "model.pt", tmp_path / "root" / "folder")
    with pytest.raises(EncoderError, match="is not allowed"):
        get_encoder(name, model_root=tmp_path / "root")


def test_a_symbolic_link_must_not_lead_out(models, tmp_path):
    (tmp_path / "model.pt").symlink_to(models / "yolov8n-cls.pt")
    with pytest.raises(EncoderError, match="leads out of MODEL_ROOT"):
        get_encoder("model.pt", model_root=tmp_path)
    (models / "link.pt").symlink_to("yolov8n-cls.pt")
    assert get_encoder("link.pt", model_root=models).feature_dim == 1280


def test_custom_models_can_be_forbidden(models):
    with pytest.raises(EncoderError, match="ALLOW_CUSTOM_MODEL_PATH"):
        get_encoder("yolov8n-cls.pt", model_root=models, allow_custom=False)
    assert not get_encoder(None, model_root=models, allow_custom=False).is_fallback


def test_a_name_that_nobody_knows(tmp_path):
    with pytest.raises(EncoderError, match=r"mine\.pt is neither a file in MODEL_ROOT .* nor an official model"):
        get_encoder("mine.pt", model_root=tmp_path)


def damaged(models: Path) -> dict[str, bytes]:
    whole = (models / "yolov8n-cls.pt").read_bytes()
    return {"empty": b"", "text": b"not a model\n" * 100, "cut off": whole[: len(whole) // 2], "tail": whole[5000:]}


@pytest.mark.parametrize("kind", ["empty", "text", "cut off", "tail"])
def test_a_damaged_checkpoint_is_named(models, tmp_path, kind):
    (tmp_path / "broken.pt").write_bytes(damaged(models)[kind])
    encoder = get_encoder("broken.pt", model_root=tmp_path)
    with pytest.raises(EncoderError, match=r"broken\.pt in MODEL_ROOT can't be loaded") as error:
        encoder.feature_dim  # noqa: B018
    assert error.value.status == 400
    assert (tmp_path / "broken.pt").exists()


class Trap:
    """Pickled, a call of `os.mkdir`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    trap = Trap(str(tmp_path / "sprung"))
    torch.save({"model": trap, "ema": None}, tmp_path / "trap.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(trap))
    for name in ("trap.pt", "pickle.pt"):
        with pytest.raises(EncoderError, match=name):
            get_encoder(name, model_root=tmp_path).feature_dim  # noqa: B018
    assert not (tmp_path / "sprung").exists()


def test_code_is_not_run_either_where_somebody_else_imported_ultralytics(tmp_path):
    torch.save({"model": Trap(str(tmp_path / "sprung")), "ema": None}, tmp_path / "trap.pt")
    program = f"""
        import ultralytics
        from pathlib import Path
        from errors import EncoderError
        from features.encoder import get_encoder
        try:
            get_encoder("trap.pt", model_root=Path({str(tmp_path)!r})).feature_dim
        except EncoderError as error:
            print(error)
    """
    environment = {name: value for name, value in os.environ.items() if name != "ULTRALYTICS_SAFE_LOAD"}
    environment |= {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, cwd=PROJECT, env=environment, check=True, capture_output=True, text=True)
    assert "trap.pt in MODEL_ROOT can't be loaded" in result.stdout
    assert not (tmp_path / "sprung").exists()


# --- Identity


def test_the_fingerprint_tells_weights_and_precision_apart_without_loading(models, tmp_path):
    write_checkpoint(tmp_path / "other.pt", seed=1)
    shutil.copy(models / "yolov8n-cls.pt", tmp_path / "copy.pt")
    prints = {
        (name, precision): get_encoder(name, model_root=tmp_path, precision=precision).fingerprint
        for name in ("other.pt", "copy.pt")
        for precision in ("fp32", "bf16")
    }
    assert len(set(prints.values())) == 4
    encoder = get_encoder("yolov8n-cls.pt", model_root=models, precision="fp32")
    assert prints["copy.pt", "fp32"] == encoder.fingerprint
    assert "_loaded" not in vars(get_encoder("other.pt", model_root=tmp_path, precision="fp32"))


def test_the_same_file_gives_the_same_encoder_and_a_replaced_one_another(models, tmp_path):
    shutil.copy(models / "yolov8n-cls.pt", tmp_path / "model.pt")
    first = get_encoder("model.pt", model_root=tmp_path)
    assert get_encoder("model.pt", model_root=tmp_path) is first
    write_checkpoint(tmp_path / "model.pt", seed=2)
    second = get_encoder("model.pt", model_root=tmp_path)
    assert second is not first
    assert second.fingerprint != first.fingerprint


def test_an_unknown_precision(models):
    with pytest.raises(EncoderError, match='PRECISION="int8" is unknown: use auto, fp32, bf16, fp16'):
        get_encoder(None, model_root=models, precision="int8")


# --- Threads and processes


def test_several_threads_load_once_and_get_the_same_numbers_as_one(models, tmp_path):
    shutil.copy(models / "yolov8n-cls.pt", tmp_path / "model.pt")
    encoder = get_encoder("model.pt", model_root=tmp_path, precision="fp32")
    frames = [Frame(0.0, av.VideoFrame.from_ndarray(scene((160, 120))(index), format="rgb24"), 0) for index in range(4)]

    def run(_: int) -> np.ndarray:
        torch.set_num_threads(1)
        return encoder.features(encoder.preprocess(frames, View.WHOLE))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(16)))
        alone = pool.submit(run, 0).result()
    for result in results:
        np.testing.assert_array_equal(result, alone)


def test_ultralytics_neither_calls_home_nor_writes_into_it(models, tmp_path):
    video = write_video(tmp_path / "video.mp4", scene((160, 120)), 3, size=(160, 120))
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    program = f"""
        import os, socket, sys, threading

        def refuse(*arguments, **_):
            print("NETWORK", arguments, flush=True)
            raise OSError("no network in this test")

        socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = socket.getaddrinfo = refuse
        from pathlib import Path
        from features.encoder import get_encoder
        from features.cache import extract

        assert "ultralytics" not in sys.modules, "importing the project must not import Ultralytics"
        encoder = get_encoder("yolov8n-cls.pt", model_root=Path({str(models)!r}))
        print(extract(encoder, {str(video)!r}).features.shape)
        assert "OMP_NUM_THREADS" not in os.environ and "YOLO_CONFIG_DIR" not in os.environ
        from ultralytics import YOLO, settings
        YOLO({str(models / "yolov8n-cls.pt")!r}).predict({str(video)!r}, verbose=False)
        assert settings["sync"] is False
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
    """
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "PATH": os.environ["PATH"]}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "(3, 1280)" in result.stdout
    assert "NETWORK" not in result.stdout
    assert list(home.rglob("*")) == []
    assert list(temporary.glob("*ltralytics*")) == []
