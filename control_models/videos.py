"""`Videos`: the videos of a control tag's tasks, and their features."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from control_models.tag import Tag
from errors import MediaError, NotReady, UnreadableVideo
from features.cache import FeatureCache, VideoFeatures
from features.encoder import Encoder
from features.extraction import open_video
from ml_backend.context import Context
from progress import UNTOLD, Progress
from video.labeling_frames import rate_mismatch
from video.preprocessing import View
from video.task_data import file_name


class Videos:
    """Finds the video of a task, and its features.

    Args:
        context: the project's files and settings.
        tag: names a task's video.
        encoder: the encoder.
    """

    def __init__(self, context: Context, tag: Tag, encoder: Encoder) -> None:
        self._media = context.media
        self._in_request = context.in_request
        self._tag = tag
        self._stride = tag.parameters.model_frame_stride
        self.encoder = encoder
        self.view = View.WHOLE if tag.parameters.model_trainable else View.CROP
        self.cache = FeatureCache(context.settings.cache_dir, int(context.settings.cache_size_limit))

    def holding_connection(self) -> AbstractContextManager[None]:
        """As of `ProjectMedia`, for work on thousands of tasks."""
        return self._media.holding_connection()

    def place(self, task: dict[str, Any]) -> Path:
        """The path of the task's file, or of its download where that is still missing. Raises MediaError where it can't
        be fetched in any case."""
        return self._media.place(self._tag.media(task), task.get("id"))

    def cached(self, task: dict[str, Any]) -> VideoFeatures | None:
        """The video's cached features, None where they would have to be extracted.

        Raises:
            MediaError: the video can't be fetched.
        """
        return self.cache.peek(self.encoder, self.place(task), self.view, self._stride)

    def duration(self, task: dict[str, Any]) -> float | None:
        """The video's seconds, None where its features aren't cached and its file isn't here or can't be read. In a
        request no file is opened."""
        try:
            features = self.cached(task)
            if features is not None:
                return features.duration
            path = None if self._in_request() else self._media.find(self._tag.media(task), task.get("id"))
            return None if path is None else open_video(path).duration or None
        except MediaError:
            return None

    def are_cached(self, task: dict[str, Any]) -> bool:
        """Whether the cache has the video's features, intact or not."""
        return self.cache.has(self.encoder, self.place(task), self.view, self._stride)

    def extracted(
        self, task: dict[str, Any], progress: Progress = UNTOLD, others: Iterable[Videos] = ()
    ) -> VideoFeatures:
        """Returns the video's features, extracted where they aren't cached.

        Args:
            task: the task.
            progress: called with the share done, in [0, 1].
            others: videos of other control tags; what they need of the same pictures is extracted in the same decoding.

        Raises:
            MediaError: the video can't be fetched or read.
        """
        self._tag.frame_rate(task)  # raises where the task can't be used, whatever its video
        media, task_id, path = self._tag.media(task), task.get("id"), self.place(task)
        views = {self.view} | {other.view for other in others if self._reads_the_same(other)}
        if any(self.cache.peek(self.encoder, path, view, self._stride) is None for view in views):
            path = self._media.get(media, task_id, partial(progress, 0.0))
        try:
            return self.cache.get_views(self.encoder, path, views, self._stride, progress)[self.view]
        except MediaError as error:
            if isinstance(error, UnreadableVideo):  # a download that isn't a video isn't kept
                self._media.remove(media, task_id)
            # The user knows the video by its name in the task; a download's own name is a hash.
            raise type(error)(str(error).replace(path.name, file_name(media))) from error

    def _reads_the_same(self, other: Videos) -> bool:
        """Whether another control tag's encoder reads the same pictures."""
        return (
            other._tag.to_name == self._tag.to_name and other.encoder is self.encoder and other._stride == self._stride
        )

    def of_file(self, path: str | Path) -> VideoFeatures:
        """Returns a video file's features.

        Raises:
            NotReady: this thread answers a request, and the features aren't cached.
            MediaError: the video can't be read.
        """
        if not self._in_request():
            return self.cache.get(self.encoder, path, self.view, self._stride)
        features = self.cache.peek(self.encoder, path, self.view, self._stride)  # only workers decode
        if features is None:
            raise NotReady("The video's features aren't cached any more, or its file changed. Ask again.")
        return features

    def drop(self, task: dict[str, Any], others: Iterable[Videos] = ()) -> None:
        """Drops the video's features and its download from the cache.

        Args:
            task: the task.
            others: videos of other control tags, whose features of the same file are dropped too: without the file and
                its hash they wouldn't be found.
        """
        path = self.place(task)
        for one in (self, *(other for other in others if other._tag.to_name == self._tag.to_name)):
            self.cache.drop(one.encoder, path, one.view, one._stride)
        self.cache.forget(path)
        self._media.remove(self._tag.media(task), task.get("id"))

    def remarks(self, task: dict[str, Any], features: VideoFeatures) -> list[str]:
        """Notes for the user on a task's video."""
        rate = self._tag.frame_rate(task)
        mismatch = rate_mismatch(features.frame_rate, rate) if self._tag.has_timeline else None
        return [text for text in (mismatch, _damage(features)) if text]


def _damage(features: VideoFeatures) -> str:
    parts = []
    if features.broken_frames:
        parts.append(f"{features.broken_frames} broken frames skipped")
    if features.truncated:
        parts.append("the file is cut off: only its readable part is used")
    return "; ".join(parts)
