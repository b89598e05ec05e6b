"""Decode a video's frames with their presentation times.

reader = decode("video.mp4")
times = [frame.time for frame in reader]
"""

import math
import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
from av.format import Flags
from av.stream import Disposition

from errors import MediaError, UnreadableVideo

UNKNOWN_RATE = 24.0  # frames per second, where a file declares none: frames without a time are spaced by it
MAX_TIME = 366 * 24 * 3600.0  # seconds; a later timestamp is a damaged one
# A time is an outlier if it leaps ahead by LEAP_SECONDS and by LEAP_INTERVALS frames, and some of the next LOOK_AHEAD
# packets have earlier times: cameras write a wrong time now and then. If all later packets follow it, the clock leapt.
LEAP_SECONDS, LEAP_INTERVALS, LOOK_AHEAD = 2.0, 20, 64
MAX_REORDERED = 16  # pictures, H.264's and HEVC's own limit
# 8K UHD: a decoder holds a dozen pictures, which take 600 MB at this size. Above 4K it uses one thread, for memory.
MAX_PIXELS, MAX_PIXELS_OF_THREADS = 7680 * 4320, 4096 * 2304
TAIL_TOLERANCE = 0.5  # seconds by which muxers disagree about where the last frame ends
# A broken key frame can take its whole group of pictures with it, and x264 makes groups of up to 250.
MAX_CONSECUTIVE_FAILURES = 300
# Containers whose timestamps count coded pictures and so say nothing about the moment of reordered ones.
CODED_ORDER_FORMATS = {"avi"}
# Codecs with packets that show nothing: a packet without a picture is not a broken one.
HIDDEN_FRAME_CODECS = {"vp8"}
# The codecs that Chromium, and so Label Studio's player, shows. Of several streams it plays the first with such a
# codec; in MP4 the first enabled one, which FFmpeg marks as default (found by trying, Chromium 156).
BROWSER_CODECS = {"h264", "hevc", "vp8", "vp9", "av1"}
# The containers that it plays, by the first name of FFmpeg's demuxer.
BROWSER_FORMATS = {"mov", "matroska", "ogg"}
# The suffixes by which folders are searched for videos.
VIDEO_SUFFIXES = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".ogv",
}
# FFmpeg's demuxers that may open a file. Playlists and scripts are left out: they name other files and addresses.
FORMATS = "mov,matroska,avi,asf,flv,h264,hevc,ivf,m4v,mpeg,mpegts,mpegvideo,mxf,obu,ogg"
REENCODE = "ffmpeg -i ORIGINAL -c:v libx264 -pix_fmt yuv420p -movflags +faststart NEW.mp4"
# Formats that FFmpeg knows and browsers don't show, by their first bytes.
NOT_SHOWN = {
    b"GIF8": "a GIF",
    b"YUV4MPEG2": "raw video (y4m)",
    b"nut/multimedia": "a NUT file",
    b"\x1f\x07\x00": "raw DV",
    b"RIFF....WEBP": "a WebP picture",
}
MP4_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}


class Frame(NamedTuple):
    """A decoded picture, and when it is shown."""

    time: float  # seconds on the video's timeline, as a browser's `currentTime` counts them
    picture: av.VideoFrame  # as decoded: pixels not converted, not rotated
    rotation: int  # degrees clockwise that make the picture upright: 0, 90, 180 or 270


class VideoReader(Iterator[Frame]):
    """Iterator over a video's frames in presentation order; its memory doesn't grow with the video's length.

    Times never decrease. Zero is the zero of the container's timestamps, as in Chromium: a video whose first timestamp
    is 0.4 s shows its first picture during those 0.4 s too. MPEG transport and program streams, whose clocks start
    anywhere, begin at zero.

    Attributes:
        average_rate: frames per second, as the file declares or else its first frames show; 0 if unknown.
        duration: seconds of the longest stream: a browser keeps the last picture while longer audio plays on. First as
            the file declares it (0 where it doesn't), after the iteration as far as the file could be read.
        broken_frames: number of frames that couldn't be decoded; complete after the iteration.
        truncated: whether the file is cut off, or its rest can't be read; known after the iteration.
        path: the file.
        has_sound: whether the file has an audio stream.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.path = Path(path)
        self._container = open_container(self.path)
        self._stream = _video_stream(self._container, self.path)
        self._codec = self._stream.codec_context
        self._codec.thread_type = "AUTO"
        self._codec.thread_count = threads if _check_size(self._codec, self.path) <= MAX_PIXELS_OF_THREADS else 1
        self._codec.options = {**self._codec.options, "max_pixels": str(MAX_PIXELS)}
        self._start = clock_start(self._container)
        self._coded_order = self._container.format.name in CODED_ORDER_FORMATS and self._codec.has_b_frames

        self.average_rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        self.duration = self._declared_end()
        self.has_sound = bool(self._container.streams.audio)
        self.broken_frames = 0
        self.truncated = False

        self._interval = 1 / (self.average_rate or UNKNOWN_RATE)
        self._last_time = -math.inf  # of the frames so far
        self._outliers: set[float] = set()  # times of packets that leapt ahead
        self._end = 0.0  # of the packets so far, seconds
        self._packet_times: deque[float] = deque()  # of the packets without a picture so far, in coded order
        self._num_packets = 0
        self._num_timed = 0  # packets whose time was read ahead
        self._num_pictures = 0
        self._num_failures = 0
        self._interlaced = False
        self._frames = self._decode()

    def __next__(self) -> Frame:
        return next(self._frames)

    def _decode(self) -> Iterator[Frame]:
        consecutive_failures = 0
        with self._container:
            for packet in chain(self._video_packets(), [None]):  # None drains the decoder
                try:
                    pictures = self._codec.decode(packet)
                except av.FFmpegError:
                    self._fail()
                    consecutive_failures += 1
                    if consecutive_failures == MAX_CONSECUTIVE_FAILURES:
                        self.truncated = True
                        break
                    continue
                for picture in pictures:
                    consecutive_failures = 0
                    time = self._time(picture)
                    if picture.is_corrupt or time > MAX_TIME or time in self._outliers:
                        self.broken_frames += 1
                        continue
                    if picture.width * picture.height > MAX_PIXELS:  # from a decoder without the option max_pixels
                        raise UnreadableVideo(_too_large(picture.width, picture.height, self.path))
                    if time < self._last_time:  # the clock was set back, as where recordings are joined
                        time = self._last_time + self._interval
                    self._last_time = time
                    # The display matrix turns counterclockwise.
                    yield Frame(time, picture, round(-picture.rotation / 90) * 90 % 360)
            self._conclude()

    def _video_packets(self) -> Iterator[av.Packet]:
        """Yields the video stream's packets, and records their times and the end of all streams."""
        for packet, time, is_outlier in self._timed_packets():
            end = time + float((packet.duration or 0) * packet.time_base)
            if is_outlier and packet.stream is self._stream:
                self._outliers.add(time)
            elif end <= MAX_TIME and not is_outlier:
                self._end = max(self._end, end)
            if packet.stream is self._stream:
                if (
                    not packet.is_discard
                ):  # an edit list hides discarded packets: the decoder needs them, but shows no picture
                    self._num_packets += 1
                    self._packet_times.append(time)
                yield packet

    def _timed_packets(self) -> Iterator[tuple[av.Packet, float, bool]]:
        """Yields all packets with their time, and whether the time is an outlier in its stream."""
        latest: dict[int, float] = {}  # by stream, without outliers
        waiting: deque[tuple[av.Packet, float]] = deque()
        leap = max(LEAP_SECONDS, LEAP_INTERVALS * self._interval)
        # Packets that may follow a packet and be shown before it.
        reordered = MAX_REORDERED if self._codec.has_b_frames else 0

        def first() -> tuple[av.Packet, float, bool]:
            packet, time = waiting.popleft()
            stream = packet.stream_index
            is_outlier = time > latest.get(stream, time) + leap and reordered < sum(
                later.stream_index == stream and after < time - leap for later, after in waiting
            )
            if not is_outlier:
                latest[stream] = time
            return packet, time, is_outlier

        for packet in self._whole_packets():
            waiting.append((packet, self._packet_time(packet)))
            if packet.stream is self._stream and not packet.is_discard:
                self._num_timed += 1
            if len(waiting) > LOOK_AHEAD:
                yield first()
        while waiting:
            yield first()

    def _whole_packets(self) -> Iterator[av.Packet]:
        """Yields all packets except a last one that the end of the file cuts in two.

        A decoder may make half a picture of such a packet, and an error at the end loses the frames in its threads.
        """
        previous = None
        for packet in self._packets():
            if previous is not None:
                yield previous
            previous = packet
        if previous is not None and previous.is_corrupt:
            self.truncated = True
        elif previous is not None:
            yield previous

    def _packets(self) -> Iterator[av.Packet]:
        """Yields all streams' packets, and skips places that can't be read."""
        failures = 0
        while failures < MAX_CONSECUTIVE_FAILURES:
            try:
                for packet in self._container.demux():
                    if packet.size:  # an empty packet would drain the decoder; AVI uses them for repeated pictures
                        failures = 0
                        yield packet
                    elif packet.dts is None:  # the end; PyAV 18 fails here for a stream that appeared after the start
                        break
                break
            except av.FFmpegError:
                failures += 1
        self.truncated |= failures > 0

    def _packet_time(self, packet: av.Packet) -> float:
        """A packet's time in seconds; counted where it has no timestamp, as in a raw stream."""
        use_dts = packet.pts is None or (self._coded_order and packet.dts is not None)
        timestamp = packet.dts if use_dts else packet.pts
        if timestamp is None:
            return self._num_timed * self._interval
        return self._seconds(timestamp, packet.time_base)

    def _declared_end(self) -> float:
        """The end in seconds that the file declares, 0 where it declares none."""
        ends = [
            self._seconds((stream.start_time or 0) + stream.duration, stream.time_base)
            for stream in self._container.streams
            if stream.type in ("video", "audio") and stream.duration is not None
        ]
        return max(ends, default=(self._container.duration or 0) / av.time_base)

    def _time(self, picture: av.VideoFrame) -> float:
        """A picture's time in seconds: its timestamp, or else the earliest time of a packet without a picture so far.

        Pictures leave the decoder in presentation order, so that the n-th picture is shown at the n-th packet's time.
        """
        self._num_pictures += 1
        self._interlaced |= picture.interlaced_frame
        packet_time = self._packet_times.popleft() if self._packet_times else self._last_time + self._interval
        if self._coded_order or picture.pts is None:
            return packet_time
        return self._seconds(picture.pts, self._stream.time_base)

    def _seconds(self, timestamp: int, time_base: Fraction) -> float:
        # One rounding: 700 / 1000 is 0.7, 700 * (1 / 1000) is more.
        return timestamp * time_base.numerator / time_base.denominator - self._start

    def _fail(self) -> None:
        self._num_failures += 1
        self.broken_frames += 1
        if self._packet_times:
            self._packet_times.popleft()

    def _conclude(self) -> None:
        """Sets the attributes that are known only at the end of the file."""
        # Decoders drop some broken pictures without an error. Two fields of one picture can be two packets.
        if self._codec.name not in HIDDEN_FRAME_CODECS and not self._interlaced:
            self.broken_frames += max(0, self._num_packets - self._num_pictures - self._num_failures)
        declared = self._declared_end()  # once more: the parts of a fragmented MP4 are known only now
        self.truncated |= self._end < declared - TAIL_TOLERANCE
        if self._last_time == -math.inf:
            state = "cut off" if self.truncated else "damaged"
            raise UnreadableVideo(
                f"No picture of {self.path.name} can be decoded: the file is {state} (codec {self._codec.name}). "
                f"Upload a complete copy, or re-encode the original: {REENCODE}"
            )
        if self.truncated or declared <= self._last_time:
            self.duration = max(self._end, self._last_time)
        else:
            self.duration = declared


def decode(path: str | Path, threads: int = 0) -> VideoReader:
    """Opens a video to iterate over its frames.

    Args:
        path: a video file.
        threads: the decoder's threads; 0 leaves the number to FFmpeg (one for each core).

    Raises:
        MediaError: the file doesn't exist.
        UnreadableVideo: no picture can be decoded; the message says why. Where the file can be opened all the same,
            the iteration raises it.
    """
    return VideoReader(path, threads)


def open_container(path: Path) -> av.container.InputContainer:
    """Opens a video file with FFmpeg. The errors are those of `decode`."""
    if not path.is_file():
        raise MediaError(f"The file {path.name} does not exist.")
    options = {"format_whitelist": FORMATS}
    try:
        # Metadata may be in any encoding; it isn't used.
        return av.open(str(path.resolve()), container_options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise UnreadableVideo(_why_unreadable(path, error)) from error


def why_not_played(path: Path) -> str | None:
    """Why Chromium, and so Label Studio's player, doesn't show a video that can be read; None where it does. The errors
    are those of `decode`."""
    with open_container(path) as container:
        form = container.format.name.partition(",")[0]
        codec = _video_stream(container, path).codec_context.name
    if form in BROWSER_FORMATS and codec in BROWSER_CODECS:
        return None
    what = f"the codec {codec}" if form in BROWSER_FORMATS else f"files of the format {form}"
    return f"{path.name}: browsers don't play {what}. Make an MP4 of it: {REENCODE}"


def _why_unreadable(path: Path, error: av.FFmpegError) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    kind = next((kind for start, kind in NOT_SHOWN.items() if re.match(start, head, re.DOTALL)), None)
    if kind is not None:
        return f"{path.name} is {kind}, which Label Studio's player doesn't show. Upload it as MP4: {REENCODE}"
    if not head:
        return f"{path.name} is empty (0 bytes). Upload it again."
    if head[4:8] in MP4_FIRST_BOXES:
        return (
            f"{path.name} is an MP4 or MOV file without a usable index (moov): the recording or the upload was cut "
            "off. Upload a complete copy."
        )
    return (
        f"{path.name} is not a video file that can be read ({error.strerror}). "
        "Upload a video such as MP4, MOV, WebM, MKV or AVI."
    )


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The video stream that Chromium plays, else the first that can be decoded. Cover pictures don't count."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams and container.streams.audio:
        raise UnreadableVideo(f"{path.name} has sound but no moving pictures. Upload a file with video.")
    if not streams:
        raise UnreadableVideo(f"The header of {path.name} names no video: the file is cut off. Upload a complete copy.")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise UnreadableVideo(f"There is no decoder for the codec of {path.name}. Upload it in another one: {REENCODE}")
    shown = [stream for stream in decodable if stream.codec_context.name in BROWSER_CODECS] or decodable
    if "mp4" in container.format.name:
        shown = [stream for stream in shown if stream.disposition & Disposition.default] or shown
    return shown[0]


def _check_size(codec: av.VideoCodecContext, path: Path) -> int:
    """The pixels of a picture by the header. Raises UnreadableVideo where there are too many."""
    if codec.width * codec.height > MAX_PIXELS:
        raise UnreadableVideo(_too_large(codec.width, codec.height, path))
    return codec.width * codec.height


def _too_large(width: int, height: int, path: Path) -> str:
    return (
        f"The pictures of {path.name} have {width}×{height} pixels; at most 7680×4320 (8K) can be read. Make them "
        "smaller: ffmpeg -i ORIGINAL -vf scale=1920:-2 -c:v libx264 -pix_fmt yuv420p NEW.mp4"
    )


def clock_start(container: av.container.InputContainer) -> float:
    """The timestamp in seconds at which the video's time is 0."""
    starts_anywhere = container.format.flags & Flags.ts_discont.value
    return (container.start_time or 0) / av.time_base if starts_anywhere else 0.0
