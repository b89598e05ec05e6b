"""Make small video files for tests: any colours or drawings, or pictures that show their own moment.

`write_video` is the tool. `FILE_KINDS` are the kinds of files whose times are hard to get right. Each knows from the
way it is made, not from reading it back, which picture is on the screen when; Chromium 156 showed the same one in every
kind that it plays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

Colour = tuple[int, int, int]

AUDIO_RATE = 48_000
AUDIO_BLOCK = 960  # samples: 20 ms, a block that both AAC and Opus take
CLOCK_BITS = 14  # of a clock in milliseconds
HIDDEN = 2**CLOCK_BITS - 1  # what the clock shows on a picture that must never be seen
DARK, BRIGHT = 40, 215
SIZE = (280, 160)  # of the pictures with clocks


def write_video(
    path: str | Path,
    pictures: Sequence[Colour] | Callable[[int], np.ndarray],
    num_frames: int | None = None,
    *,
    rate: float | Fraction = 25,
    times: Sequence[float] | None = None,
    size: tuple[int, int] = (320, 240),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    audio_seconds: float = 0,
    audio_start: float = 0,
) -> Path:
    """Write a video and return its path.

    Args:
        path: its suffix decides the container.
        pictures: one RGB colour per frame, or a function of the frame's index that draws uint8 [height, width, 3] (then
            `num_frames` says how many).
        num_frames: number of frames where `pictures` is a function.
        rate: frames per second.
        times: presentation times in seconds, one per frame; index / rate where None.
        size: width and height of the upright picture.
        codec: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name of the pixel format.
        options: of the encoder.
        container_options: of the muxer, such as `movflags`.
        rotation: degrees clockwise that make the stored picture upright, as in a video of a phone held upright.
        audio_seconds: length of a silent sound track; none where 0.
        audio_start: its first timestamp in seconds.
    """
    width, height = size if rotation % 180 == 0 else size[::-1]
    rate = Fraction(rate).limit_denominator(1001)
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        video = container.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        time_base = Fraction(1, 1000) if times is not None else 1 / rate
        video.codec_context.time_base = time_base
        if rotation:
            video.set_display_rotation(-rotation)
        audio = None
        if audio_seconds:
            sound_codec = "libopus" if Path(path).suffix == ".webm" else "aac"
            audio = container.add_stream(sound_codec, rate=AUDIO_RATE, layout="mono")
        for index in range(len(pictures) if num_frames is None else num_frames):
            image = pictures(index) if callable(pictures) else np.full((*size[::-1], 3), pictures[index], np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(image, rotation // 90)), format="rgb24")
            frame.pts = index if times is None else round(times[index] * 1000)
            frame.time_base = time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _encode_silence(container, audio, audio_seconds, audio_start)
    return Path(path)


def write_audio(path: str | Path, seconds: float = 1.0) -> Path:
    """Write a file that has sound only, and return its path."""
    with av.open(str(path), "w") as container:
        _encode_silence(container, container.add_stream("aac", rate=AUDIO_RATE, layout="mono"), seconds)
    return Path(path)


def _encode_silence(
    container: av.container.OutputContainer, stream: av.AudioStream, seconds: float, start: float = 0
) -> None:
    for position in range(0, round(seconds * AUDIO_RATE), AUDIO_BLOCK):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, AUDIO_BLOCK), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = AUDIO_RATE, Fraction(1, AUDIO_RATE)
        frame.pts = position + round(start * AUDIO_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def rewrite_packets(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Replace the contents of a video file's packets (in coded order); their times stay."""
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        original = path.with_stem(f"{path.stem}-rewritten")
        with av.open(str(original), "w") as target:
            copy = target.add_stream_from_template(stream)
            for packet, data in zip(packets, change([bytes(packet) for packet in packets]), strict=True):
                changed = av.Packet(data)
                changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
                changed.time_base, changed.is_keyframe, changed.stream = packet.time_base, packet.is_keyframe, copy
                target.mux(changed)
    original.replace(path)


def break_packet(index: int) -> Callable[[Path], None]:
    """A function that overwrites one packet of a file with zeros."""

    def change(packets: list[bytes]) -> list[bytes]:
        packets[index] = bytes(len(packets[index]))
        return packets

    return lambda path: rewrite_packets(path, change)


def pack_b_frames(packets: list[bytes]) -> list[bytes]:
    """Lay out MPEG-4 packets (first picture, then pairs of P and B) as DivX did in AVI: two pictures, then none."""
    packed = [b"\x00\x00\x01\xb2DivX503b1393p" + packets[0]]
    pairs = len(packets[1:]) // 2
    for index in range(1, 2 * pairs, 2):
        packed += [packets[index] + packets[index + 1], b"\x00\x00\x01\xb6\x5f"]
    return packed + packets[1 + 2 * pairs :]


def cut_off(fraction: float) -> Callable[[Path], None]:
    """A function that keeps only the first part of a file's bytes."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * fraction)])

    return cut


def draw_clock(moment: float, size: tuple[int, int]) -> np.ndarray:
    """A picture, uint8 [height, width, 3], that shows milliseconds as bright and dark bars, the lowest bit on the left.

    A negative moment is drawn as `HIDDEN`.
    """
    milliseconds = round(moment * 1000) if moment >= 0 else HIDDEN
    bits = milliseconds >> (np.arange(size[0]) * CLOCK_BITS // size[0]) & 1
    row = np.where(bits, BRIGHT, DARK).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (size[1], size[0], 3))


def read_clock(picture: av.VideoFrame, rotation: int) -> float:
    """The moment, in seconds, that a decoded picture shows once it is turned clockwise by `rotation` degrees."""
    grey = np.rot90(picture.to_ndarray(format="gray"), -rotation // 90)
    bars = np.array_split(grey.mean(axis=0), CLOCK_BITS)
    bits = [bar[len(bar) // 4 : -len(bar) // 4].mean() > (DARK + BRIGHT) / 2 for bar in bars]
    return sum(1 << position for position, bit in enumerate(bits) if bit) / 1000


@dataclass(frozen=True)
class FileKind:
    """A kind of video file, whose pictures show the moment from which they are on the screen.

    Attributes:
        suffix: of the file name.
        moments: when each picture comes on the screen, seconds on the browser's timeline; negative where never.
        labeling_rate: the `frameRate` of the labeling config.
        writing: arguments of `write_video`.
        damage: what is done to the finished file.
    """

    suffix: str
    moments: Sequence[float]
    labeling_rate: float = 25
    writing: dict[str, Any] = field(default_factory=dict)
    damage: Callable[[Path], None] | None = None

    def make(self, folder: Path) -> Path:
        """Write the file into a folder and return its path."""
        size = self.writing.get("size", SIZE)
        path = write_video(
            folder / f"video{self.suffix}",
            lambda index: draw_clock(self.moments[index], size),
            len(self.moments),
            **{"size": size, **self.writing},
        )
        if self.damage:
            self.damage(path)
        return path

    def shown(self, time: float) -> float:
        """The moment that the picture on the screen at `time` shows; before the first picture it is the first's."""
        visible = [moment for moment in self.moments if moment >= 0]
        return max((moment for moment in visible if moment <= time), default=visible[0])


def at_rate(rate: float | Fraction, num_frames: int = 90, start: float = 0.0) -> list[float]:
    """The moments of frames at a constant rate."""
    return [start + float(index / Fraction(rate).limit_denominator(1001)) for index in range(num_frames)]


def timed(moments: Sequence[float], offset: float = 0.0) -> dict[str, Any]:
    """Arguments of `write_video` for timestamps that are `offset` seconds behind the moments."""
    return {"times": [moment + offset for moment in moments]}


NTSC = Fraction(30000, 1001)
STEADY = at_rate(25)
LATE = at_rate(25, start=0.4)
TRIMMED = at_rate(NTSC, start=0.066)
DROPPED = [moment for index, moment in enumerate(at_rate(25, 120)) if index * index % 7 not in (2, 4)]
PAUSE = [moment + 2 * (index >= 40) for index, moment in enumerate(STEADY)]
HIDDEN_START = at_rate(25, start=-0.4)
B_FRAMES = {"bf": "3", "b-pyramid": "normal", "b-adapt": "0"}
INTRA_ONLY = {"g": "1"}
HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1"}}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
MPEG4 = {"codec": "mpeg4"}
MPEG4_B_FRAMES = {"codec": "mpeg4", "options": {"bf": "1", "b_strategy": "0"}}
FRAGMENTED = {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}
FAST_START = {"container_options": {"movflags": "faststart"}}

FILE_KINDS = {
    "25 fps": FileKind(".mp4", STEADY),
    "30 fps": FileKind(".mp4", at_rate(30), writing={"rate": 30}),
    "29.97 fps": FileKind(".mp4", at_rate(NTSC), writing={"rate": NTSC}),
    "29.97 fps, labeled at 29.97": FileKind(".mp4", at_rate(NTSC), 29.97, writing={"rate": NTSC}),
    "12 fps": FileKind(".mp4", at_rate(12, 40), writing={"rate": 12}),
    "60 fps, labeled at 10": FileKind(".mp4", at_rate(60, 180), 10, writing={"rate": 60}),
    "variable rate, dropped frames": FileKind(".mp4", DROPPED, writing=timed(DROPPED)),
    "variable rate, a pause of 2 s": FileKind(".mp4", PAUSE, writing=timed(PAUSE)),
    "first timestamp 0.4 s": FileKind(".mp4", LATE, writing=timed(LATE)),
    # HumanSignal/label-studio#4714.
    "first timestamp 0.066 s, 29.97 fps": FileKind(".mp4", TRIMMED, 29.97, writing=timed(TRIMMED)),
    "first timestamp 0.4 s, sound from 0": FileKind(".mp4", LATE, writing={**timed(LATE), "audio_seconds": 4}),
    "first timestamp 0.4 s, MKV": FileKind(".mkv", LATE, writing=timed(LATE)),
    "B-frames": FileKind(".mp4", STEADY, writing={"options": B_FRAMES}),
    "edit list that hides 0.4 s": FileKind(".mp4", HIDDEN_START, writing=timed(HIDDEN_START)),
    "sound 2 s longer": FileKind(".mp4", STEADY, writing={"audio_seconds": 5.6}),
    "rotated by 90°": FileKind(".mp4", STEADY, writing={"rotation": 90}),
    "rotated by 180°": FileKind(".mp4", STEADY, writing={"rotation": 180}),
    "rotated by 270°": FileKind(".mov", STEADY, writing={"rotation": 270}),
    "MKV, 29.97 fps": FileKind(".mkv", at_rate(NTSC), writing={"rate": NTSC}),
    "MKV, 29.97 fps, labeled at 29.97": FileKind(".mkv", at_rate(NTSC), 29.97, writing={"rate": NTSC}),
    "WebM/VP9, 30 fps": FileKind(".webm", at_rate(30), writing={"rate": 30, **VP9}),
    "WebM/VP9, sound 2 s longer": FileKind(".webm", STEADY, writing={"audio_seconds": 5.6, **VP9}),
    "AVI/MPEG-4": FileKind(".avi", STEADY, writing=MPEG4),
    "AVI/MPEG-4, B-frames": FileKind(".avi", STEADY, writing=MPEG4_B_FRAMES),
    "AVI/MPEG-4, packed B-frames": FileKind(
        ".avi", STEADY, writing=MPEG4_B_FRAMES, damage=lambda path: rewrite_packets(path, pack_b_frames)
    ),
    "AVI/H.264, B-frames": FileKind(".avi", STEADY, writing={"options": B_FRAMES}),
    "MOV/HEVC": FileKind(".mov", at_rate(30), writing={"rate": 30, **HEVC}),
    "HEVC, 10 bits": FileKind(".mp4", STEADY, writing={"pixel_format": "yuv420p10le", **HEVC}),
    "H.264, 4:2:2": FileKind(".mp4", STEADY, writing={"pixel_format": "yuv422p"}),
    "H.264, 4:4:4, 281×161": FileKind(".mp4", STEADY, writing={"pixel_format": "yuv444p", "size": (281, 161)}),
    "WebM/VP9, 281×161": FileKind(".webm", STEADY, writing={"size": (281, 161), **VP9}),
    "1 frame": FileKind(".mp4", at_rate(25, 1)),
    "a broken frame": FileKind(".mp4", STEADY, writing={"options": INTRA_ONLY}, damage=break_packet(45)),
    "a broken frame, AVI with B-frames": FileKind(".avi", STEADY, writing=MPEG4_B_FRAMES, damage=break_packet(46)),
    "cut off, MP4": FileKind(".mp4", STEADY, writing=FAST_START, damage=cut_off(0.6)),
    "cut off, fragmented MP4": FileKind(
        ".mp4", STEADY, writing={"options": {"g": "20", "bf": "0"}, **FRAGMENTED}, damage=cut_off(0.5)
    ),
    "cut off, MKV": FileKind(".mkv", STEADY, damage=cut_off(0.6)),
    "cut off, WebM": FileKind(".webm", STEADY, writing=VP9, damage=cut_off(0.6)),
    "MPEG-TS, clock from 2 s": FileKind(".ts", STEADY, writing=timed(STEADY, offset=2)),
    "raw H.264, no timestamps": FileKind(".h264", STEADY, writing={"options": B_FRAMES}),
}
