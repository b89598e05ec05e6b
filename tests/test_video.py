"""Frames in true time: what `video/reader.py` makes of every kind of file, compared with how the file was made."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.alignment import LIMIT, measure
from errors import InvalidConfig, InvalidTask, MediaError, UnreadableVideo
from tests.videos import (
    B_FRAMES,
    FILE_KINDS,
    INTRA_ONLY,
    MPEG4,
    MPEG4_B_FRAMES,
    NTSC,
    STEADY,
    VP9,
    FileKind,
    break_packet,
    cut_off,
    rewrite_packets,
    write_audio,
    write_video,
)
from video import reader as reader_module
from video.labeling_frames import check_frame_rate, frame_rate, labeling_frames, rate_mismatch
from video.reader import decode

CLOCK_PRECISION = 0.0005  # seconds: the clocks in the pictures show milliseconds
GREY = (120, 120, 120)
RED, BLUE = (200, 30, 30), (30, 30, 200)


def read_times(path: Path, threads: int = 0) -> tuple[list[float], reader_module.VideoReader]:
    reader = decode(path, threads)
    return [frame.time for frame in reader], reader


# The pictures at labeling frames


@pytest.mark.parametrize("name", FILE_KINDS)
def test_labeling_frames_show_the_picture_of_their_moment(name, tmp_path):
    kind = FILE_KINDS[name]
    alignment = measure(kind, kind.make(tmp_path))
    assert alignment.worst <= LIMIT + CLOCK_PRECISION * kind.labeling_rate
    assert alignment.broken_frames == ("a broken frame" in name)
    assert alignment.truncated == ("cut off" in name)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("25 fps", 90),
        ("29.97 fps", 75),  # 90 * 1001 / 30000 s * 25 = 75.075
        ("12 fps", 83),  # 40 / 12 s * 25 = 83.3
        ("variable rate, a pause of 2 s", 140),  # 90 frames of 40 ms and 2 s
        ("first timestamp 0.4 s", 100),
        ("edit list that hides 0.4 s", 80),
        ("sound 2 s longer", 140),  # 5.6 s of sound
        ("1 frame", 1),
        ("a broken frame", 90),
        ("raw H.264, no timestamps", 90),
    ],
)
def test_labeling_frames_cover_the_whole_timeline(name, count, tmp_path):
    kind = FILE_KINDS[name]
    assert measure(kind, kind.make(tmp_path)).num_labeling_frames == count


@pytest.mark.parametrize(
    ("suffix", "rate", "labeling_rate", "options"),
    [
        (".mp4", 25, 25, {"options": B_FRAMES}),
        (".mp4", NTSC, 29.97, {}),
        (".mkv", NTSC, 29.97, {}),
        (".webm", 30, 30, VP9),
        (".avi", 24, 24, {"codec": "mpeg4"}),
        (".ts", 50, 50, {}),
    ],
)
def test_each_labeling_frame_has_its_own_picture_where_rates_agree(suffix, rate, labeling_rate, options, tmp_path):
    path = write_video(tmp_path / f"video{suffix}", [GREY] * 120, rate=rate, **options)
    times, reader = read_times(path)
    assert labeling_frames(times, reader.duration, labeling_rate).tolist() == list(range(120))


def test_a_change_of_colour_falls_on_its_labeling_frame(tmp_path):
    path = write_video(tmp_path / "video.mp4", [RED] * 37 + [BLUE] * 53, rate=NTSC)
    reader = decode(path)
    times, is_blue = [], []
    for frame in reader:
        times.append(frame.time)
        red, _, blue = frame.picture.to_ndarray(format="rgb24").mean(axis=(0, 1))
        is_blue.append(blue > red)
    blue_frames = np.flatnonzero(np.array(is_blue)[labeling_frames(times, reader.duration, 25)]) + 1
    # Blue comes at 37 * 1001 / 30000 = 1.2346 s, the middle of frame 32 is at 31.5 / 25 = 1.26 s, that of 31 at 1.22 s.
    assert blue_frames.tolist() == list(range(32, 76))


# What the reader says about the file


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_makes_the_picture_upright(degrees, tmp_path):
    left_half_bright = np.full((96, 160, 3), 20, np.uint8)
    left_half_bright[:, :80] = 230
    path = write_video(tmp_path / "video.mp4", lambda _: left_half_bright, 3, size=(160, 96), rotation=degrees)
    for frame in decode(path):
        assert frame.rotation == degrees
        upright = np.rot90(frame.picture.to_ndarray(format="gray"), -frame.rotation // 90)
        assert upright.shape == (96, 160)
        assert upright[:, :70].min() > 200
        assert upright[:, 90:].max() < 60


def test_the_number_of_threads_changes_nothing(tmp_path):
    path = write_video(tmp_path / "video.mp4", [GREY] * 60, options=B_FRAMES)
    expected = [index / 25 for index in range(60)]
    assert read_times(path, threads=1)[0] == expected
    assert read_times(path, threads=4)[0] == expected


def test_pixels_stay_as_the_file_has_them(tmp_path):
    path = write_video(tmp_path / "video.mp4", [GREY], pixel_format="yuv422p10le")
    (frame,) = decode(path)
    assert frame.picture.format.name == "yuv422p10le"


def test_rate_and_duration_are_known_from_the_start(tmp_path):
    reader = decode(write_video(tmp_path / "video.mp4", [GREY] * 50, rate=NTSC, audio_seconds=3))
    assert reader.average_rate == pytest.approx(29.97, abs=0.001)
    assert reader.duration == pytest.approx(3, abs=0.05)


def test_the_duration_counts_from_time_zero(tmp_path):
    times = [0.4 + index / 25 for index in range(50)]
    path = write_video(tmp_path / "video.mp4", [GREY] * 50, times=times, audio_seconds=4, audio_start=0.4)
    _, reader = read_times(path)
    assert reader.duration == pytest.approx(4.4, abs=0.03)


def test_metadata_in_any_encoding_is_no_obstacle(tmp_path):
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Caf*"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 160, 96
        picture = av.VideoFrame.from_ndarray(np.zeros((96, 160, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Caf*", b"Caf\xe9"))  # Latin-1
    assert len(list(decode(path))) == 1


# Damaged files


@pytest.mark.parametrize("threads", [1, 4])
def test_a_broken_frame_is_skipped_and_counted_and_the_others_keep_their_times(threads, tmp_path):
    path = write_video(tmp_path / "video.mp4", [GREY] * 60, options=INTRA_ONLY)
    break_packet(30)(path)
    times, reader = read_times(path, threads)
    assert times == [index / 25 for index in range(60) if index != 30]
    assert reader.broken_frames == 1
    assert not reader.truncated


def test_broken_frames_do_not_move_the_others_where_the_container_counts_coded_pictures(tmp_path):
    path = write_video(tmp_path / "video.avi", [GREY] * 61, **MPEG4_B_FRAMES)
    for packet in (20, 30, 40):  # B-frames: pictures 19, 29, 39
        break_packet(packet)(path)
    times, reader = read_times(path)
    assert times == [index / 25 for index in range(61) if index not in (19, 29, 39)]
    assert reader.broken_frames == 3


def test_a_picture_decoded_in_part_is_a_broken_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 96, 160, 3), np.uint8)
    path = write_video(tmp_path / "video.avi", lambda index: noise[index], 20, size=(160, 96), **MPEG4)
    rewrite_packets(path, lambda packets: [*packets[:10], packets[10][: len(packets[10]) // 2], *packets[11:]])
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 20  # the decoder makes something up
    times, reader = read_times(path)
    assert times == [index / 25 for index in range(20) if index != 10]
    assert reader.broken_frames == 1


def test_a_frame_that_the_decoder_drops_without_an_error_is_counted(tmp_path):
    options = {"x265-params": "log-level=none:bframes=1:b-adapt=0:keyint=100"}
    path = write_video(tmp_path / "video.mov", [GREY] * 61, codec="libx265", options=options)

    def clear_a_b_frame(packets):  # coded order: pictures 0, 2, 1, 4, 3 …
        packets[30] = packets[30][:5] + bytes(len(packets[30]) - 5)
        return packets

    rewrite_packets(path, clear_a_b_frame)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 60  # and no error
    times, reader = read_times(path)
    assert times == [index / 25 for index in range(61) if index != 29]
    assert reader.broken_frames == 1


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", {"container_options": {"movflags": "faststart"}}),
        (".mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": {"bf": "0", "g": "20"}}),
        (".mkv", {}),
        (".webm", VP9),
        (".avi", {"codec": "mpeg4"}),
    ],
)
def test_what_is_left_of_a_file_cut_off_is_used(suffix, options, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (100, 96, 160, 3), np.uint8)  # frames of about the same size
    path = write_video(tmp_path / f"video{suffix}", lambda index: noise[index], 100, size=(160, 96), **options)
    _, whole = read_times(path)
    assert not whole.truncated
    cut_off(0.55)(path)
    times, reader = read_times(path)
    assert 40 < len(times) < 60
    assert times == [pytest.approx(index / 25, abs=0.001) for index in range(len(times))]
    assert reader.truncated
    assert reader.broken_frames == 0
    # Nothing is said about frames that nobody could see.
    assert len(labeling_frames(times, reader.duration, 25)) == pytest.approx(len(times), abs=1)


def test_reading_ends_where_nothing_can_be_decoded_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_CONSECUTIVE_FAILURES", 10)
    path = write_video(tmp_path / "video.mp4", [GREY] * 60, options=INTRA_ONLY)
    rewrite_packets(path, lambda packets: packets[:48] + [bytes(len(data)) for data in packets[48:]])
    times, reader = read_times(path, threads=1)
    assert len(times) == 48
    assert reader.broken_frames == 10
    assert reader.truncated


def test_a_place_that_cannot_be_read_ends_the_video_but_fails_nothing(tmp_path):
    path = write_video(tmp_path / "video.ivf", [GREY] * 60, **VP9)
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][59]
    data = bytearray(path.read_bytes())
    data[place : place + 4] = b"\xff\xff\xff\xff"  # the packet's length
    path.write_bytes(data)
    times, reader = read_times(path)
    assert times == [index / 25 for index in range(59)]
    assert reader.truncated


def test_joined_recordings_follow_each_other(tmp_path):
    path = write_video(tmp_path / "video.ts", [GREY] * 50)
    path.write_bytes(path.read_bytes() * 2)  # the second one's clock starts again
    times, reader = read_times(path)
    assert times == [pytest.approx(index / 25) for index in range(100)]
    assert labeling_frames(times, reader.duration, 25)[-1] >= 98


def test_a_timestamp_beyond_all_reason_is_a_broken_frame(tmp_path):
    times, reader = read_times(write_video(tmp_path / "video.mkv", [GREY] * 3, times=[0, 0.04, 1e8]))
    assert times == [0, 0.04]
    assert reader.broken_frames == 1
    assert len(labeling_frames(times, reader.duration, 25)) == 2


def with_times(source: Path, path: Path, ahead: dict[int, float]) -> Path:
    """A copy of a video whose n-th packets are so many seconds ahead."""
    with av.open(str(source)) as original, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(original.streams.video[0])
        for number, packet in enumerate(packet for packet in original.demux(video=0) if packet.size):
            packet.stream = stream
            packet.pts += round(ahead.get(number, 0) / packet.time_base)
            copy.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("options", [{"g": "1", "bf": "0"}, B_FRAMES])
@pytest.mark.parametrize("ahead", [{45: 60}, {45: 300, 46: 300}, {45: 300, 47: 60}, {20: 5, 60: 4000}])
def test_times_that_leap_ahead_are_broken_pictures_and_the_others_keep_theirs(suffix, options, ahead, tmp_path):
    """A camera's wrong times; two in a row: NVIDIA/VideoProcessingFramework#452."""
    good = FileKind(suffix, STEADY, writing={"options": options}).make(tmp_path)
    times, reader = read_times(with_times(good, tmp_path / f"bad{suffix}", ahead))
    expected, _ = read_times(good)
    assert len(times) == len(expected) - len(ahead)
    assert set(times) <= set(expected)
    assert reader.broken_frames == len(ahead)
    assert reader.duration == pytest.approx(3.6, abs=0.05)


@pytest.mark.parametrize("options", [{"bf": "0"}, B_FRAMES])
@pytest.mark.parametrize("pause", [2.5, 3600])
def test_a_clock_that_leaps_for_good_is_followed(options, pause, tmp_path):
    moments = [moment + pause * (index >= 40) for index, moment in enumerate(STEADY)]
    times, reader = read_times(write_video(tmp_path / "video.mp4", [GREY] * 90, times=moments, options=options))
    assert times == pytest.approx(moments, abs=0.001)
    assert reader.broken_frames == 0


def test_a_timelapse_of_four_days_is_read_whole(tmp_path):
    moments = [1800.0 * index for index in range(192)]
    times, reader = read_times(write_video(tmp_path / "video.mp4", [GREY] * 192, times=moments, size=(64, 64)))
    assert times == moments
    assert (reader.broken_frames, reader.truncated) == (0, False)
    assert len(labeling_frames(times, reader.duration, 1 / 1800)) == 191  # the last one lasts for 40 ms


def test_a_timecode_track_is_no_obstacle(tmp_path):
    """As GoPro's cameras write it: gyroflow/mp4-merge#1."""
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.metadata["timecode"] = "10:20:30:04"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    times, reader = read_times(tmp_path / "video.mp4")
    assert times == pytest.approx([index / 30 for index in range(30)])
    assert not reader.truncated


SMALL, LARGE = (64, 48), (128, 96)


@pytest.mark.parametrize(
    ("suffix", "codecs", "default", "expected"),
    [
        (".mp4", ("libx264", "libx264"), None, SMALL),
        (".mp4", ("libx264", "libx264"), 0, SMALL),
        (".mp4", ("libx264", "libx264"), 1, LARGE),
        (".mkv", ("libx264", "libx264"), 1, SMALL),
        (".webm", ("libvpx", "libvpx"), 1, SMALL),
        (".mp4", ("mpeg4", "libx264"), None, LARGE),
        (".mkv", ("mpeg2video", "libx264"), 0, LARGE),
        (".avi", ("mpeg4", "mpeg4"), None, SMALL),
    ],
)
def test_of_several_streams_the_one_that_chromium_plays_is_read(suffix, codecs, default, expected, tmp_path):
    """What Chromium 156 showed of these very files; AVI it doesn't play."""
    path = tmp_path / f"video{suffix}"
    with av.open(str(path), "w") as container:
        streams = []
        for codec, size in zip(codecs, (SMALL, LARGE), strict=True):
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        for number, stream in enumerate(streams):
            if default is not None:
                stream.disposition = Disposition.default if number == default else Disposition(0)
        for stream in streams:
            picture = np.zeros((stream.height, stream.width, 3), np.uint8)
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    picture = next(decode(path)).picture
    assert (picture.width, picture.height) == expected


def test_pictures_beyond_8k_are_refused_by_their_size(tmp_path):
    """Flat grey ones, of some kB in the file."""
    path = tmp_path / "video.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=25, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 8192, 4352, "yuv420p"
        picture = av.VideoFrame(8192, 4352, "yuv420p")
        for plane in picture.planes:
            plane.update(b"\x80" * plane.buffer_size)
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableVideo, match=r"8192×4352 pixels; at most .* -vf scale"):
        decode(path)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"GIF89a", "a GIF"),
        (b"YUV4MPEG2 W64", "raw video (y4m)"),
        (b"nut/multimedia container\0", "a NUT file"),
        (b"\x1f\x07\x00\x3f", "raw DV"),
        (b"RIFF\x10\0\0\0WEBPVP8X", "a WebP picture"),
    ],
)
def test_what_the_player_does_not_show_is_named(head, kind, tmp_path):
    path = tmp_path / "video.bin"
    path.write_bytes(head + bytes(1000))
    with pytest.raises(UnreadableVideo) as error:
        decode(path)
    assert f"is {kind}, which Label Studio's player doesn't show" in str(error.value)
    assert "MP4" in str(error.value)


def test_more_labeling_frames_than_memory_takes_are_refused():
    with pytest.raises(InvalidTask, match=r"47\.9 h.*1000 a second.*Set frameRate lower"):
        labeling_frames([0.0, 1.0, 172_440.0], 172_440.0, 1000)
    with pytest.raises(InvalidTask, match=r"at most 1000000 are possible for its 3 pictures.*Set frameRate lower"):
        labeling_frames([0.0, 1.0, 172_440.0], 172_440.0, 25)
    assert len(labeling_frames(np.arange(86_400.0), 86_400.0, 25)) == 2_160_000  # a day, one picture a second


# Files without a picture


def make_empty(path: Path) -> None:
    path.touch()


def make_text(path: Path) -> None:
    path.write_text("This is not a video.\n" * 50)


def make_without_index(path: Path) -> None:
    write_video(path, [GREY] * 25)  # the index comes last
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def make_cut_before_the_first_picture(path: Path) -> None:
    write_video(path, [GREY] * 25, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 12])


def make_cut_in_the_index(path: Path) -> None:
    write_video(path, [GREY] * 25, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") + 20])


def make_audio_with_cover(path: Path) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 48_000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))


def make_all_broken(path: Path) -> None:
    write_video(path, [GREY] * 25)
    rewrite_packets(path, lambda packets: [bytes(len(data)) for data in packets])


def make_unknown_codec(path: Path) -> None:
    write_video(path, [GREY] * 5)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))


@pytest.mark.parametrize(
    ("make", "reason", "remedy"),
    [
        (make_empty, "is empty (0 bytes)", "Upload it again"),
        (make_text, "is not a video file", "Upload a video such as MP4"),
        (make_without_index, "without a usable index (moov)", "Upload a complete copy"),
        (make_cut_in_the_index, "header of video.mp4 names no video", "Upload a complete copy"),
        (make_cut_before_the_first_picture, "the file is cut off", "Upload a complete copy"),
        (write_audio, "has sound but no moving pictures", "Upload a file with video"),
        (make_audio_with_cover, "has sound but no moving pictures", "Upload a file with video"),
        (make_all_broken, "the file is damaged (codec h264)", "ffmpeg -i ORIGINAL"),
        (make_unknown_codec, "no decoder for the codec", "ffmpeg -i ORIGINAL"),
    ],
)
def test_a_file_without_a_picture_says_what_is_wrong_and_how_to_mend_it(make, reason, remedy, tmp_path):
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(UnreadableVideo) as error:
        list(decode(path))
    message = str(error.value)
    assert "video.mp4" in message
    assert reason in message
    assert remedy in message
    assert str(tmp_path) not in message


def test_a_missing_file_is_not_an_unreadable_one(tmp_path):
    with pytest.raises(MediaError, match=r"nowhere\.mp4 does not exist") as error:
        decode(tmp_path / "nowhere.mp4")
    assert not isinstance(error.value, UnreadableVideo)


def test_a_playlist_does_not_lead_to_other_files(tmp_path):
    write_video(tmp_path / "secret.ts", [GREY] * 25)
    playlist = tmp_path / "video.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    with av.open(str(playlist)) as container:  # FFmpeg by itself goes there
        assert len(list(container.decode(video=0))) == 25
    with pytest.raises(UnreadableVideo):
        decode(playlist)


# Rates


@pytest.mark.parametrize(
    ("value", "task_data", "expected"),
    [
        ("25", {}, 25),
        ("29.97", {}, 29.97),
        (" 30 ", {}, 30),
        (None, {}, 24),
        ("", {}, 24),
        ("fast", {}, 24),
        ("0", {}, 24),
        ("nan", {}, 24),
        ("-25", {}, 24),
        ("0.04", {}, 25),  # seconds per frame
        ("1", {}, 1),
        ("$fps", {"fps": 50}, 50),
        ("$fps", {"fps": "12.5"}, 12.5),
        ("$fps", {"fps": 0.5}, 2),
        ("$fps", {}, 24),
        ("$fps", {"fps": None}, 24),
        ("$fps", {"fps": [25]}, 24),
        ("$meta.fps", {"meta": {"fps": 60}}, 60),
        ("$meta.fps", {"meta": 60}, 24),
    ],
)
def test_frame_rate_follows_the_front_end(value, task_data, expected):
    assert frame_rate(value, task_data) == pytest.approx(expected)


@pytest.mark.parametrize("fps", [5000, "1e9", 0.0000001])
def test_a_task_with_an_impossible_frame_rate_is_refused(fps):
    with pytest.raises(InvalidTask, match=r"frameRate=\"\$fps\""):
        frame_rate("$fps", {"fps": fps})


@pytest.mark.parametrize("value", ["2000", "1e9", "0.0000001", "0", "-25", "nan", "inf", "fast", "25 fps"])
def test_an_impossible_frame_rate_of_the_config_is_refused(value):
    with pytest.raises(InvalidConfig) as error:
        check_frame_rate('<Video name="v"', value)
    assert str(error.value).startswith(f'<Video name="v" frameRate="{value}">: it must be the frames per second')


@pytest.mark.parametrize("value", [None, "", " ", "25", " 29.97 ", "0.04", "1000", "$fps", "$meta.fps"])
def test_a_possible_frame_rate_of_the_config_is_taken(value):
    check_frame_rate('<Video name="v"', value)


@pytest.mark.parametrize(
    ("file_rate", "labeling_rate", "expected"),
    [
        (30000 / 1001, 25, "file 29.97 fps, config 25: mapped by time"),
        (12.5, 24, "file 12.5 fps, config 24: mapped by time"),
        (30000 / 1001, 30, "file 29.97 fps, config 30: mapped by time"),
        (30000 / 1001, 29.97, None),
        (24000 / 1001, 23.98, None),
        (25, 25, None),
        (0, 25, None),  # the file doesn't tell
    ],
)
def test_a_mismatch_of_rates_is_put_into_words(file_rate, labeling_rate, expected):
    assert rate_mismatch(file_rate, labeling_rate) == expected


# The map from labeling frames to pictures, without files

RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50), Fraction(60000, 1001)]


@settings(deadline=None)  # a busy machine is no failure
@given(
    rate=st.sampled_from(RATES),
    num_frames=st.integers(1, 2000),
    ticks=st.sampled_from([1000, 12_800, 90_000]),
    config_digits=st.sampled_from([2, 3, 9]),
)
def test_rounded_timestamps_and_rates_keep_the_identity(rate, num_frames, ticks, config_digits):
    times = [round(index / rate * ticks) / ticks for index in range(num_frames)]
    duration = round(num_frames / rate * ticks) / ticks
    chosen = labeling_frames(times, duration, round(float(rate), config_digits))
    assert chosen.tolist() == list(range(num_frames))


@settings(deadline=None)
@given(num_frames=st.integers(1, 300), rate=st.sampled_from([12, 25, 30, 60]), data=st.data())
def test_jitter_below_half_a_frame_keeps_the_identity(num_frames, rate, data):
    jitter = data.draw(st.lists(st.floats(-0.49, 0.49), min_size=num_frames, max_size=num_frames))
    times = [(index + offset) / rate for index, offset in enumerate(jitter)]
    assert labeling_frames(times, num_frames / rate, rate).tolist() == list(range(num_frames))


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=200),
    tail=st.floats(0, 3),
    rate=st.floats(1, 120),
)
def test_each_labeling_frame_takes_the_last_picture_that_has_come(gaps, tail, rate):
    times = np.cumsum(gaps)
    duration = times[-1] + tail
    chosen = labeling_frames(times, duration, rate)
    assert abs(len(chosen) - duration * rate) <= 0.5 or len(chosen) == 1
    assert (np.diff(chosen) >= 0).all()
    for frame, index in enumerate(chosen, start=1):
        moment = (frame - 0.5) / rate
        come = [position for position, time in enumerate(times) if time <= moment]
        assert index == (come[-1] if come else 0)
