"""Serve a task's video to the dashboard's player, as a video and nothing else.

A task's data names the file, so its suffix can't be trusted. The media type follows from the file's first bytes,
browsers are told not to guess another one, and the file can run no script, plugin or form.
"""

from __future__ import annotations

from pathlib import Path

from flask import Response, request, send_file
from werkzeug.http import parse_range_header

from video.reader import MP4_FIRST_BOXES

UNKNOWN = "application/octet-stream"
HEAD_BYTES = 256
TS_PACKET = 188
# The first bytes of the containers that are read (video/reader.py).
SIGNATURES = {
    b"OggS": "video/ogg",
    b"FLV": "video/x-flv",
    b"\x30\x26\xb2\x75": "video/x-ms-asf",
    b"\x00\x00\x01\xba": "video/mpeg",
    b"\x00\x00\x01\xb3": "video/mpeg",
    b"DKIF": "video/x-ivf",
}
MATROSKA = b"\x1a\x45\xdf\xa3"
POLICY = "sandbox; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
# A player asks for the rest of the file and reads it as it plays. Answers of this length don't hold a thread for long.
PART_BYTES = 2**20


def send_video(path: Path) -> Response:
    """Answers with the file, or with the part of it that the request asks for."""
    asked = parse_range_header(request.headers.get("Range"))
    if asked is not None and asked.units == "bytes" and len(asked.ranges) == 1:
        start, end = asked.ranges[0]
        if start >= 0:
            end = min(start + PART_BYTES, start + PART_BYTES if end is None else end)
            request.environ["HTTP_RANGE"] = f"bytes={start}-{end - 1}"
    response = send_file(path, mimetype=media_type(path), conditional=True, etag=True)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def media_type(path: Path) -> str:
    """The media type of a video file, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[4:8] in MP4_FIRST_BOXES:
        return "video/mp4"
    if head.startswith(MATROSKA):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    if head[:1] == b"G" == head[TS_PACKET : TS_PACKET + 1]:
        return "video/mp2t"
    return next((kind for start, kind in SIGNATURES.items() if head.startswith(start)), UNKNOWN)
