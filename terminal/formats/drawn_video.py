"""Draw a copy of a video with its timelines below the picture."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from learning.events import segments
from progress import UNTOLD, Progress
from video.reader import decode
from video.timeline import Track

TIME_BASE = Fraction(1, 90_000)  # fine enough for every frame rate
MIN_WIDTH = 480  # pixels; narrower pictures are centred, so that labels are readable
MARGIN = 3  # above the rows and below them
BACKGROUND, LINE, TEXT, PLAYHEAD = (24, 26, 30), (54, 58, 66), (232, 234, 238), (255, 255, 255)
QUALITY = {"crf": "20", "preset": "veryfast"}


def draw_timelines(video: Path, tracks: Sequence[Track], target: Path, progress: Progress = UNTOLD) -> None:
    """Writes an MP4 (H.264, without sound) with the predicted timelines below the picture.

    Args:
        video: the video. Every frame keeps its time.
        tracks: the timelines, with predictions.
        target: the file to write. An unfinished file is removed.
        progress: called with the share done, in [0, 1].

    Raises:
        MediaError: the video can't be read.
    """
    reader = decode(video)
    part = target.with_suffix(".part.mp4")
    strip: _Strip | None = None
    try:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(reader.average_rate or 25).limit_denominator(1001))
            stream.pix_fmt, stream.options = "yuv420p", QUALITY
            stream.codec_context.time_base = TIME_BASE
            last_pts = -1
            for frame in reader:
                picture = np.rot90(frame.picture.to_ndarray(format="rgb24"), -frame.rotation // 90)
                if strip is None:
                    strip = _Strip(tracks, picture.shape[1], picture.shape[0])
                    stream.width, stream.height = strip.size
                drawn = av.VideoFrame.from_image(strip.draw(picture, frame.time))
                last_pts = max(round(frame.time / TIME_BASE), last_pts + 1)
                drawn.pts, drawn.time_base = last_pts, TIME_BASE
                container.mux(stream.encode(drawn))
                if reader.duration:
                    progress(min(1.0, frame.time / reader.duration))
            container.mux(stream.encode(None))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Strip:
    """Draws timelines below pictures of one size."""

    def __init__(self, tracks: Sequence[Track], width: int, height: int) -> None:
        self._rows = [
            (track, label, track.prediction.marks()[:, column])
            for track in tracks
            for column, label in enumerate(track.colours)
        ]
        self._picture = (width, height)
        self._width = _even(max(width, MIN_WIDTH))
        self._row = max(16, self._width // 40)
        self._font = ImageFont.load_default(self._row * 0.75)
        self._name_width = int(max(self._font.getlength(label) for _, label, _ in self._rows)) + self._row
        self._bars_width = self._width - self._name_width - self._row // 2
        self.size = (self._width, _even(self._top(len(self._rows) + 1) + MARGIN))
        self._base = self._draw_base()

    def draw(self, picture: np.ndarray, time: float) -> Image.Image:
        """Draws the timelines below a picture, uint8 [height, width, 3], that is shown at a moment in seconds."""
        image = self._base.copy()
        image.paste(Image.fromarray(picture), ((self._width - self._picture[0]) // 2, 0))
        draw = ImageDraw.Draw(image)
        for number, (track, label, marks) in enumerate(self._rows):
            frame = min(int(time * track.clock.frame_rate), track.clock.num_frames - 1)
            if marks[frame]:
                top = self._top(number)
                draw.rectangle((0, top, self._name_width - 4, top + self._row - 3), fill=_rgb(track.colours[label]))
                draw.text((self._row // 3, top), label, fill=_contrast(track.colours[label]), font=self._font)
        duration = max(track.clock.duration for track, _, _ in self._rows) or 1.0
        x = self._name_width + min(1.0, time / duration) * self._bars_width
        draw.line((x, self._picture[1], x, self.size[1]), fill=PLAYHEAD, width=2)
        clock = f"{int(time // 60)}:{time % 60:05.2f}"
        draw.text((self._row // 3, self._top(len(self._rows)) + 1), clock, fill=TEXT, font=self._font)
        return image

    def _draw_base(self) -> Image.Image:
        image = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        for number, (track, label, marks) in enumerate(self._rows):
            top = self._top(number)
            draw.text((self._row // 3, top), label, fill=TEXT, font=self._font)
            draw.rectangle((self._name_width, top, self._name_width + self._bars_width, top + self._row - 3), fill=LINE)
            for start, end in segments(marks):
                left, right = (
                    self._name_width
                    + min(1.0, frame / track.clock.frame_rate / track.clock.duration) * self._bars_width
                    for frame in (start, end)
                )
                draw.rectangle((left, top, max(right - 1, left), top + self._row - 3), fill=_rgb(track.colours[label]))
        return image

    def _top(self, row: int) -> int:
        return self._picture[1] + MARGIN + row * self._row


def _even(number: int) -> int:
    return number + number % 2


def _rgb(colour: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb(colour)[:3]
    except ValueError:  # a CSS colour that Pillow doesn't know
        return 54, 179, 126


def _contrast(colour: str) -> tuple[int, int, int]:
    red, green, blue = _rgb(colour)
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
