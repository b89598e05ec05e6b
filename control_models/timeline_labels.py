"""`TimelineLabelsModel`: label intervals of a video's timeline, by the encoder's own classes or by a trained
classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from control_models.base import ControlModel, ControlPrediction
from control_models.tag import Region
from control_models.timeline_tag import TimelineTag
from control_models.trained import TrainedMode
from errors import NotReady
from video.timeline import Observation, Recording, Timeline, Track, events_of_regions


class TimelineLabelsModel(ControlModel):
    """Serves `<TimelineLabels>` connected to a `<Video>`.

    With `model_trainable="false"` (simple mode) the encoder's class probabilities, mapped to labels, make the timeline.
    With "true" a classifier of the encoder's features does, trained on the project's annotations.
    """

    tag_type = TimelineTag
    tag: TimelineTag

    def _predict_file(
        self, path: str | Path, frame_rate: float, task: dict[str, Any] | None = None
    ) -> ControlPrediction:
        """Predicts a video, with questions to its annotator where the config names a label for them. They say nothing
        of the video, so a track has none."""
        prediction = super()._predict_file(path, frame_rate, task)
        if self.tag.parameters.model_query_label is None or not isinstance(self.mode, TrainedMode):
            return prediction
        asked = self.tag.questions(self.mode.doubted(prediction.probabilities, prediction.annotated), frame_rate)
        return prediction._replace(regions=prediction.regions + asked)

    def track(self, task: dict[str, Any], recall: bool = True) -> Track:
        frame_rate, media = self.tag.frame_rate(task), self.tag.media(task)
        features = self.videos.of_file(self.videos.place(task))
        clock, colours = self.tag.clock(features, frame_rate), self.tag.colours
        track = Track(self.from_name, media, clock, colours, None, None, self.tag.parameters.model_reviewed_label)
        try:
            prediction = self._predict(features, frame_rate, self.mode.ready(), task if recall else None)
        except NotReady as error:
            return replace(track, reason=str(error))
        events = events_of_regions(prediction.regions, frame_rate)
        observation = Observation(media, f"{self.encoder.name}-{prediction.version}", events, task.get("id"))
        timeline = Timeline(observation, clock, tuple(self.tag.labels), prediction.probabilities)
        return replace(track, prediction=timeline)

    def recording(self, task: dict[str, Any]) -> Recording:
        tag = self.tag
        return Recording(
            self.from_name,
            tag.media(task),
            tag.frame_rate(task),
            self.videos.duration(task),
            tuple(tag.labels),
            tag.parameters.model_reviewed_label,
        )

    # -- under the names of the published model

    def predict_regions(self, video_path: str | Path) -> list[Region]:
        """Predicts the regions of a video file, at the config's frame rate. Errors as of `predict`."""
        return self._predict_file(video_path, self.tag.frame_rate({})).regions

    def create_timelines_simple(self, video_path: str | Path, frame_rate: float) -> np.ndarray:
        """Predicts label probabilities [num_labeling_frames, num_labels] from the encoder's classes, in simple mode."""
        return self._predict_file(video_path, frame_rate).probabilities

    def create_timelines_trainable(self, video_path: str | Path, frame_rate: float) -> np.ndarray:
        """Predicts label probabilities [num_labeling_frames, num_labels] by the trained classifier, in trainable mode.

        Raises:
            NotReady: there is no classifier for the present config and encoder.
        """
        return self._predict_file(video_path, frame_rate).probabilities

    def get_classifier_path(self, project_id: str) -> Path:
        """The file of a project's present classifier, in trainable mode. Deleting it resets the model."""
        return self.mode.path(project_id)
