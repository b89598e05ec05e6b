"""The attributes of control tags that configure their models, validated."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from errors import InvalidConfig
from learning.network import BATCH_SIZE, LAYER_SIZE, MAX_LAYERS
from video.preprocessing import Region

P = TypeVar("P", bound="Parameters")

LARGEST_IMAGE = 1280  # pixels a side; takes 33 times as long as the 224 that most classifiers are made for


def _region(text: Any) -> Region:
    try:
        region = Region(*(float(part) for part in str(text).split(",")))
    except (TypeError, ValueError):
        region = Region(math.nan, 0, 0, 0)
    x, y, width, height = region
    if min(x, y) >= 0 and min(width, height) >= 1 and max(x + width, y + height) <= 100 + 1e-6:
        return region
    raise PydanticCustomError(
        "region",
        'x,y,width,height in per cent of the picture, as Label Studio counts: "50,0,50,100" is its right half. All of '
        "it must lie in the picture, and width and height must be at least 1",
    )


# The memory that a training may hold, and the multiplications of one of its steps. A step takes about two seconds; a
# training can be cancelled between two steps.
MAX_TRAINING_BYTES = 10**9
MAX_STEP_PRODUCTS = 2**28
# The float32 values that are held for each parameter (value, gradient, two of the optimiser and a temporary one) and,
# in each direction, for each unit of a layer at a frame.
VALUES_OF_A_PARAMETER, VALUES_OF_A_UNIT = 5, 10


# They change when a training follows, which tasks come next, and what is made of probabilities, but not what is learnt.
UNLEARNT = (
    *("model_train_every", "model_predict_ahead", "model_choose_next"),
    *("model_score_threshold", "score_threshold", "model_min_duration", "model_merge_gap", "model_exclusive"),
)


class Parameters(BaseModel):
    """Attributes of any control tag, with the defaults of the published model.

    Attributes:
        model_trainable: whether a classifier is trained on the annotations, or the encoder's own classes are mapped to
            labels.
        model_classifier_epochs: the largest number of passes of the LSTM over the annotations in one training.
        model_classifier_sequence_size: frames per training window.
        model_classifier_hidden_size: units of the LSTM in each direction.
        model_classifier_num_layers: layers of the LSTM.
        model_classifier_f1_threshold: the LSTM isn't trained where the probe's macro-F1 on held-out videos reaches it.
        model_classifier_accuracy_threshold: the LSTM isn't trained where the probe's accuracy there reaches it.
        model_score_threshold: a row has a label from this probability on.
        model_path: a file in MODEL_ROOT, an official Ultralytics model, or `timm/` and the name of a timm model; None
            for the default encoder.
        model_frame_stride: the features of every n-th frame are computed, those between are interpolated.
        model_region: the part of the pictures that the encoder is shown; None for whole pictures.
        model_image_size: pixels a side of a square with as many pixels as the encoder is shown; None for the encoder's
            own size.
        model_start_from: a project's number, or the name of an imported model, whose linear probe of labels of the same
            name is weighted by how well it predicts the annotated videos. None: start from nothing.
        model_train_every: the number of submissions after which a training follows; 0: only the button trains.
        model_predict_ahead: the number of tasks whose predictions are stored in Label Studio after a training, before
            anybody asks for them.
        model_choose_next: whether Label Studio's stream of tasks brings those first whose annotation would teach most.
        model_skip: whether to leave this control tag alone.
    """

    model_config = ConfigDict(protected_namespaces=(), extra="ignore")

    control_type: ClassVar[str]  # the control tag's name in the labeling config

    model_trainable: bool = False
    model_classifier_epochs: int = Field(1000, ge=1, le=1_000_000)
    model_classifier_sequence_size: int = Field(16, ge=2, le=4096)
    model_classifier_hidden_size: int = Field(32, ge=1, le=1024)
    model_classifier_num_layers: int = Field(1, ge=1, le=MAX_LAYERS)
    model_classifier_f1_threshold: float = Field(0.95, ge=0, le=1)
    model_classifier_accuracy_threshold: float = Field(1.0, ge=0, le=1)
    model_score_threshold: float = Field(
        0.5, ge=0, le=1, validation_alias=AliasChoices("model_score_threshold", "score_threshold")
    )
    model_path: str | None = Field(None, max_length=200)  # a file's name may have 255 bytes
    model_frame_stride: int = Field(1, ge=1, le=1000)
    model_region: Annotated[Region, BeforeValidator(_region)] | None = None
    model_image_size: int | None = Field(None, ge=64, le=LARGEST_IMAGE, multiple_of=32)
    model_start_from: str | None = Field(None, max_length=100)
    model_train_every: int = Field(1, ge=0, le=1000)
    model_predict_ahead: int = Field(100, ge=0, le=1000)
    model_choose_next: bool = False
    model_skip: bool = False

    @classmethod
    def from_attributes(cls: type[P], control_name: str, attributes: dict[str, str], score_threshold: float) -> P:
        """Reads a control tag's attributes.

        Args:
            control_name: the tag's name, for messages.
            attributes: the tag's XML attributes; other attributes are ignored.
            score_threshold: the default of `model_score_threshold`.

        Raises:
            InvalidConfig: the message names each wrong attribute, its value and what is allowed.
        """
        given = {name: value.strip() for name, value in attributes.items() if value.strip()}
        if "score_threshold" not in given:
            given.setdefault("model_score_threshold", str(score_threshold))
        try:
            parameters = cls.model_validate(given)
        except ValidationError as error:
            faults = "; ".join(_fault(fault) for fault in error.errors())
            raise InvalidConfig(f'<{cls.control_type} name="{control_name}">: {faults}.') from error
        parameters._check_size(control_name)
        return parameters

    @classmethod
    def is_skipped(cls, control_name: str, attributes: dict[str, str]) -> bool:
        """Whether a control tag is to be skipped, whatever its other attributes are.

        Raises:
            InvalidConfig: `model_skip` isn't true or false.
        """
        skip = {name: value for name, value in attributes.items() if name == "model_skip"}
        return cls.from_attributes(control_name, skip, score_threshold=0).model_skip

    def _check_size(self, control_name: str) -> None:
        """Raises InvalidConfig where sizes that are allowed singly are too large together."""
        frames, units = self.model_classifier_sequence_size, self.model_classifier_hidden_size
        layers = self.model_classifier_num_layers
        # A bidirectional LSTM has four gates, each of which reads the layer below (both directions) and its own state.
        weights = 8 * units * (LAYER_SIZE + units + (layers - 1) * 3 * units)
        held = weights * VALUES_OF_A_PARAMETER + BATCH_SIZE * frames * layers * 2 * units * VALUES_OF_A_UNIT
        if 4 * held > MAX_TRAINING_BYTES or weights * frames > MAX_STEP_PRODUCTS:
            raise InvalidConfig(
                f'<{self.control_type} name="{control_name}">: model_classifier_sequence_size="{frames}", '
                f'model_classifier_hidden_size="{units}" and model_classifier_num_layers="{layers}" are too large '
                f"together: a training would hold {4 * held / 10**9:.1f} GB and take {weights * frames / 10**9:.2g} "
                f"billion products a window; at most {MAX_TRAINING_BYTES / 10**9:.1f} GB and "
                f"{MAX_STEP_PRODUCTS / 10**9:.2g} billion are possible. Make one of them smaller; their defaults are "
                "16, 32 and 1."
            )


class TimelineLabelsParameters(Parameters):
    """Attributes of `<TimelineLabels>`.

    Attributes:
        model_exclusive: whether a frame has one label at most; the most probable course is chosen, by how long labels
            last and follow each other in the annotations.
        model_min_duration: seconds; shorter events aren't predicted.
        model_merge_gap: seconds; events of a label with no longer gap between them become one.
        model_reviewed_label: a label of the tag that marks the annotated frames of a video; the others are left out.
            None: all frames are annotated.
        model_query_label: a label of the tag with which predictions mark the spans whose annotation would teach most.
            None: they mark none.
    """

    control_type = "TimelineLabels"

    model_exclusive: bool = False
    model_min_duration: float = Field(0.0, ge=0, le=86_400, allow_inf_nan=False)
    model_merge_gap: float = Field(0.0, ge=0, le=86_400, allow_inf_nan=False)
    model_reviewed_label: str | None = None
    model_query_label: str | None = None


def _fault(fault: Any) -> str:
    allowed = fault["msg"].replace("Input should be ", "").removesuffix(", unable to interpret input")
    allowed = {"bool_parsing": "true or false", "int_parsing": "a whole number", "float_parsing": "a number"}.get(
        fault["type"], allowed
    )
    return f'{fault["loc"][0]}="{str(fault["input"])[:100]}" isn\'t allowed; it must be {allowed}'
