"""The energies of a video's sound in bands of pitch, at each frame.

The sound of a file is opened apart from its pictures, and read only as far as the pictures are. So a damaged track
doesn't harm the pictures, and memory doesn't grow with the length. Sound that can't be read counts as silent.

    sound = Sound("video.mp4", frame_rate=25)
    sound.at([0.0, 0.04, 0.08])  # [3, SOUND_SIZE]
"""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.stream import Discard, Disposition
from scipy import fft

from errors import MediaError
from video.reader import MAX_TIME, clock_start, open_container

logger = logging.getLogger(__name__)

SOUND_SIZE = 40  # bands, evenly spaced in mels from LOWEST to HIGHEST
SOUND_DTYPE = np.float16
RATE = 16_000  # samples a second, all channels averaged
HOP = 160  # samples from one spectrum to the next: 10 ms
WINDOW = 512  # samples of a spectrum: 32 ms
LOWEST, HIGHEST = 50.0, 8000.0  # Hz
FLOOR = -100.0  # dB relative to a full-scale sine; taken as silence
SHORTEST_SPAN, LONGEST_SPAN = 0.04, 0.5  # seconds of sound for a frame's values
GAP_TOLERANCE = 0.05  # seconds; rounding errors of a gapless stream's times
LONGEST_FILLED_GAP = 1.0  # seconds; after a longer gap a new run of samples begins
MAX_FAILURES = 300  # in a row, as for pictures


class Sound:
    """Reads the sound of a video file. Moments must be asked for in order.

    Of several tracks it reads the one that players choose: the default track, else the first.

    Args:
        path: a video file.
        frame_rate: of its pictures. A frame's values are of the sound around it, for as long as a frame is shown.
    """

    def __init__(self, path: str | Path, frame_rate: float) -> None:
        span = min(max(1 / frame_rate if frame_rate > 0 else 0.0, SHORTEST_SPAN), LONGEST_SPAN)
        self._reach = round(span * RATE / HOP / 2)  # spectra on each side of a moment
        self._runs = _samples(Path(path))
        self._ended = False
        self._rest = np.zeros(0, np.float32)  # the samples at the beginning of the next spectra
        self._next = 0  # index of the next spectrum; spectrum n is around sample n * HOP of the video
        self._indices = np.zeros(0, np.int64)
        self._powers = np.zeros((0, SOUND_SIZE), np.float32)

    def at(self, times: Sequence[float]) -> np.ndarray:
        """The energies at moments in seconds: [num_times, SOUND_SIZE] `SOUND_DTYPE`, from 0 (silent) to about 1 (full
        scale)."""
        powers = np.zeros((len(times), SOUND_SIZE), np.float32)
        for row, time in enumerate(times):
            middle = round(time * RATE / HOP)
            first, last = middle - self._reach, middle + self._reach
            self._read(first, last)
            heard = self._powers[: np.searchsorted(self._indices, last, side="right")]
            powers[row] = heard.sum(axis=0) / (2 * self._reach + 1)
        decibels = 10 * np.log10(np.maximum(powers, 10 ** (FLOOR / 10)))
        return np.maximum(1 - decibels / FLOOR, 0).astype(SOUND_DTYPE)

    def close(self) -> None:
        """Closes the file."""
        self._runs.close()

    def _read(self, first: int, last: int) -> None:
        """Reads spectra up to index `last`, and drops those before index `first`."""
        kept = np.searchsorted(self._indices, first)
        self._indices, self._powers = self._indices[kept:], self._powers[kept:]
        while not self._ended and self._next <= last:
            try:
                run = next(self._runs, None)
            except Exception as error:  # no fault of the sound may cost the pictures
                logger.warning("The rest of a video's sound can't be read: %r", error)
                run = None
            self._ended = run is None
            self._add(*(run or (None, np.zeros(WINDOW, np.float32))), first)  # silence after the last samples

    def _add(self, start: int | None, samples: np.ndarray, first: int) -> None:
        """Adds samples that begin at sample `start` of the video, or follow the last ones where it is None."""
        if start is not None:
            self._next = start // HOP
            self._rest = np.zeros(start - (self._next * HOP - WINDOW // 2), np.float32)  # silence before the run
        waiting = np.concatenate([self._rest, samples])
        count = max(0, (len(waiting) - WINDOW) // HOP + 1)
        skipped = min(count, max(0, first - self._next))
        if count > skipped:
            windows = np.lib.stride_tricks.sliding_window_view(waiting, WINDOW)[skipped * HOP : count * HOP : HOP]
            self._powers = np.concatenate([self._powers, _band_powers(windows)])
            self._indices = np.concatenate([self._indices, np.arange(self._next + skipped, self._next + count)])
        self._rest = waiting[count * HOP :]
        self._next += count


def _band_powers(windows: np.ndarray) -> np.ndarray:
    """The powers [num_windows, SOUND_SIZE] of samples [num_windows, WINDOW]; that of a full-scale sine is 1."""
    spectrum = fft.rfft(windows * _taper(), axis=1)
    return (spectrum.real**2 + spectrum.imag**2) @ _bands()


@lru_cache(maxsize=1)
def _taper() -> np.ndarray:
    taper = np.hanning(WINDOW).astype(np.float32)
    return 2 * taper / taper.sum()


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """The bands [WINDOW // 2 + 1, SOUND_SIZE]: triangles over frequency, even in mels (O'Shaughnessy, 1987)."""

    def mels(hertz: np.ndarray | float) -> np.ndarray:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    edges = np.linspace(mels(LOWEST), mels(HIGHEST), SOUND_SIZE + 2)
    frequencies = mels(fft.rfftfreq(WINDOW, 1 / RATE))[:, None]
    step = edges[1] - edges[0]
    return np.maximum(0, 1 - np.abs(frequencies - edges[1:-1]) / step).astype(np.float32)


def _samples(path: Path) -> Iterator[tuple[int | None, np.ndarray]]:
    """Yields the file's samples, float32 at `RATE`: each part with the index of its first sample where a run begins, or
    with None where it follows the part before."""
    try:
        container = open_container(path)
    except (MediaError, OSError):
        return
    with container:
        stream = _audio_stream(container)
        if stream is None:
            return
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        start = clock_start(container)
        end: float | None = None  # of the samples so far, seconds
        for samples, time in _decoded(container, stream):
            begin = end or 0.0
            if time is not None and abs(time - start) <= MAX_TIME:
                begin = max(time - start, end or -MAX_TIME)  # where the clock was set back, the sound continues
            if end is None or begin > end + LONGEST_FILLED_GAP:
                end = begin
                yield round(begin * RATE), samples
            else:
                gap = round((begin - end) * RATE) if begin > end + GAP_TOLERANCE else 0
                end += gap / RATE
                yield None, np.pad(samples, (gap, 0)) if gap else samples
            end += len(samples) / RATE


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    default = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter(default or streams), None)


def _decoded(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[tuple[np.ndarray, float | None]]:
    """Yields the samples that can be decoded, and the time at which they begin, in seconds of the container's clock."""
    resampler, form = None, None
    failures = 0
    while failures < MAX_FAILURES:
        try:
            for frame in container.decode(stream):
                if (frame.format.name, frame.layout.name, frame.sample_rate) != form:
                    resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=RATE)
                    form = frame.format.name, frame.layout.name, frame.sample_rate
                time = frame.time
                pieces = [piece.to_ndarray() for piece in resampler.resample(frame)]
                failures = 0
                if pieces:
                    channels = frame.layout.nb_channels
                    samples = np.concatenate(pieces, axis=1).reshape(-1, channels).mean(axis=1, dtype=np.float32)
                    yield np.nan_to_num(samples, copy=False).clip(-1, 1), time
            return
        except (av.FFmpegError, ValueError):
            failures += 1
