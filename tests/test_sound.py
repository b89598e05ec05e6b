"""The sound of a video's frames, and sound tracks of odd kinds."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from features.cache import extract
from features.sound import SOUND_SIZE, Sound
from tests.brightness import BrightnessEncoder

RATE = 25  # pictures a second
SECONDS = 4
TIMES = np.arange(RATE * SECONDS) / RATE
BEEP = (1.0, 1.5)  # seconds in which a beep is heard
Signal = Callable[[np.ndarray], np.ndarray]  # seconds -> samples in [-1, 1]


def beep(frequency: float = 1000.0, loudness: float = 0.5) -> Signal:
    def signal(time: np.ndarray) -> np.ndarray:
        return loudness * np.sin(2 * np.pi * frequency * time) * ((time >= BEEP[0]) & (time < BEEP[1]))

    return signal


def silence(time: np.ndarray) -> np.ndarray:
    return np.zeros_like(time)


def write(
    path: Path,
    *tracks: Signal,
    codec: str = "aac",
    rate: int = 48_000,
    layout: str = "mono",
    start: float = 0.0,
    seconds: float = SECONDS,
    gap: tuple[float, float] | None = None,
    default: int = 0,
) -> Path:
    """A video of `SECONDS` with sound tracks, each from `start` on for `seconds`.

    Args:
        gap: from when to when no samples are written.
        default: the track that players choose.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        streams = [container.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for number, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if number == default else 0
        packets = []
        for index in range(RATE * SECONDS):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            packets += video.encode(picture)
        packets += video.encode(None)
        for stream, signal in zip(streams, tracks, strict=True):
            block, form = stream.codec_context.frame_size or 1024, stream.codec_context.format.name
            for first in range(0, int(seconds * rate), block):
                time = start + (first + np.arange(block)) / rate
                if gap is not None and gap[0] <= time[0] < gap[1]:
                    continue
                values = signal(time).repeat(stream.codec_context.channels)[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(values, format="flt", layout=layout)
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(time[0] * rate)
                for converted in av.AudioResampler(format=form, layout=layout, rate=rate).resample(frame):
                    packets += stream.encode(converted)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def heard(path: Path, times: np.ndarray = TIMES, frame_rate: float = RATE) -> np.ndarray:
    sound = Sound(path, frame_rate)
    try:
        return sound.at(list(times)).astype(np.float32)
    finally:
        sound.close()


def span(sound: np.ndarray, times: np.ndarray = TIMES) -> tuple[float, float]:
    """From when to when the loudest band is more than half as loud as at most, on the scale of decibels."""
    loud = times[sound.max(axis=1) > 0.6]
    return float(loud.min()), float(loud.max())


def is_beep(sound: np.ndarray, times: np.ndarray = TIMES) -> bool:
    """Whether the beep is heard when it is there, and silence else."""
    inside = (times > BEEP[0] + 0.06) & (times < BEEP[1] - 0.06)
    outside = (times < BEEP[0] - 0.1) | (times > BEEP[1] + 0.1)
    return sound[inside].max(axis=1).min() > 0.8 and sound[outside].max() < 0.4


def test_a_beep_is_heard_when_and_where_it_is(tmp_path):
    sound = heard(write(tmp_path / "video.mp4", beep(1000)))
    assert sound.shape == (len(TIMES), SOUND_SIZE)
    assert is_beep(sound)
    assert span(sound) == pytest.approx(BEEP, abs=0.06)
    bands = [int(heard(write(tmp_path / f"{f}.mp4", beep(f)))[30].argmax()) for f in (200, 1000, 4000)]
    assert bands == sorted(set(bands))
    louder, quieter = (heard(write(tmp_path / f"{level}.mp4", beep(1000, level)))[30].max() for level in (0.5, 0.05))
    assert louder - quieter == pytest.approx(20 / 100, abs=0.03)  # decibels


def test_pictures_and_sound_are_read_together(tmp_path):
    path = write(tmp_path / "video.mp4", beep())
    video = extract(BrightnessEncoder(), path)
    np.testing.assert_array_equal(video.sound, heard(path, video.times).astype(np.float16))
    assert is_beep(video.sound)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
@pytest.mark.parametrize("stride", [1, 7])
def test_containers(tmp_path, suffix, stride):
    video = extract(BrightnessEncoder(), write(tmp_path / f"video{suffix}", beep()), stride=stride)
    assert is_beep(video.sound, video.times)


@pytest.mark.parametrize(
    ("codec", "rate", "layout"),
    [
        ("pcm_s16le", 8_000, "mono"),
        ("pcm_s16le", 44_100, "stereo"),
        ("pcm_s24le", 384_000, "mono"),
        ("pcm_s16le", 48_000, "7.1"),
        ("pcm_f32le", 48_000, "mono"),
        ("libopus", 48_000, "mono"),
        ("flac", 192_000, "5.1"),
    ],
)
def test_rates_and_channels(tmp_path, codec, rate, layout):
    assert is_beep(heard(write(tmp_path / "video.mkv", beep(), codec=codec, rate=rate, layout=layout)))


def test_samples_that_are_no_numbers(tmp_path):
    def broken(time: np.ndarray) -> np.ndarray:
        values = beep()(time)
        values[::97], values[1::97], values[2::97] = np.nan, np.inf, -1e30
        return np.where(time < 2, beep()(time), values)

    sound = heard(write(tmp_path / "video.mkv", broken, codec="pcm_f32le"))
    assert np.isfinite(sound).all()
    assert is_beep(sound[:45], TIMES[:45])


def test_the_default_track_is_heard(tmp_path):
    assert is_beep(heard(write(tmp_path / "first.mkv", beep(), silence)))
    assert is_beep(heard(write(tmp_path / "second.mkv", silence, beep(), default=1)))


@pytest.mark.parametrize("start", [0.5, 0.0])
def test_a_track_that_begins_late_or_ends_early(tmp_path, start):
    path = write(tmp_path / "video.mkv", beep(), codec="pcm_s16le", start=start, seconds=1.8 - start)
    assert is_beep(heard(path))


def test_a_longer_track(tmp_path):
    video = extract(BrightnessEncoder(), write(tmp_path / "video.mkv", beep(), codec="pcm_s16le", seconds=9))
    assert len(video.sound) == len(TIMES)
    assert is_beep(video.sound)


@pytest.mark.parametrize("end", [0.8, 3.0])
def test_a_gap_moves_nothing(tmp_path, end):
    path = write(tmp_path / "video.mkv", beep(), codec="pcm_s16le", gap=(0.2, min(end, BEEP[0])))
    assert is_beep(heard(path))

    def late(time: np.ndarray) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 1000 * time) * (time >= 3.2)

    path = write(tmp_path / "late.mkv", late, codec="pcm_s16le", gap=(0.2, end))
    assert span(heard(path))[0] == pytest.approx(3.2, abs=0.06)


def test_no_sound_is_zeros(tmp_path):
    video = extract(BrightnessEncoder(), write(tmp_path / "video.mp4"))
    assert video.sound.shape == (len(TIMES), SOUND_SIZE)
    assert not video.sound.any()
    assert not heard(write(tmp_path / "silent.mkv", silence, codec="pcm_s16le")).any()


@pytest.mark.parametrize("codec", ["aac", "flac", "mp3"])
def test_broken_sound_leaves_the_pictures(tmp_path, codec):
    path = write(tmp_path / "video.mkv", beep(), codec=codec)
    intact = extract(BrightnessEncoder(), path)
    with av.open(str(path)) as container:
        packets = [(packet.stream.type, bytes(packet)) for packet in container.demux() if packet.size]
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for kind, content in packets:
        place = data.find(content)
        if kind == "audio" and place >= 0 and len(content) > 16:
            data[place : place + len(content)] = rng.bytes(len(content))
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data)
    video = extract(BrightnessEncoder(), broken)
    np.testing.assert_array_equal(video.features, intact.features)
    np.testing.assert_array_equal(video.times, intact.times)
    assert video.broken_frames == 0
    assert np.isfinite(video.sound).all()


def test_reading_in_parts_changes_nothing(tmp_path):
    path = write(tmp_path / "video.mp4", beep())
    sound = Sound(path, RATE)
    parts = np.concatenate([sound.at(list(part)) for part in np.array_split(TIMES, 23)])
    sound.close()
    np.testing.assert_array_equal(parts, heard(path).astype(np.float16))


def test_pictures_far_apart_hear_what_is_around_them(tmp_path):
    path = write(tmp_path / "video.mp4", beep())
    times = np.array([0.0, 1.25, 3.5])
    sound = heard(path, times, frame_rate=0.5)
    assert sound.max(axis=1)[1] > 0.8
    assert sound[[0, 2]].max() < 0.4


def test_what_was_read_is_not_kept(tmp_path):
    path = write(tmp_path / "video.mkv", beep(), codec="pcm_s16le", seconds=60)
    sound = Sound(path, RATE)
    sound.at([0.0, 50.0])
    assert len(sound._powers) < 100
    sound.close()
