"""The errors that users can do something about, each with its HTTP status.

This is the lowest layer: every module may import it, and it imports none. A message says what is wrong and what to do;
the web layer sends it as `{"error": message}`. Any exception that isn't a `BackendError` is a bug (status 500).
"""

import uuid


class BackendError(Exception):
    """Base class of all errors with a message for the user.

    Attributes:
        status: the HTTP status of the answer.
        retry_after: seconds after which the same request may succeed, None where repeating it doesn't help.
    """

    status = 500
    retry_after: int | None = None


class InternalError(BackendError):
    """A bug in the backend.

    Attributes:
        reference: a random id, in the answer and in the log beside the traceback.
    """

    def __init__(self) -> None:
        self.reference = uuid.uuid4().hex[:8]
        super().__init__(f"Something went wrong here, not with the request. Reference {self.reference} in the log.")


class InvalidRequest(BackendError):
    """The request's body doesn't have the form that the route expects."""

    status = 400


class InvalidConfig(BackendError):
    """This backend can't work with the labeling config."""

    status = 400


class InvalidAnnotation(BackendError):
    """A region can't be learnt, or the project has no annotation to learn from."""

    status = 400


class Unauthorized(BackendError):
    """The request needs a user and a password."""

    status = 401


class Forbidden(BackendError):
    """The request isn't allowed."""

    status = 403


class TooLarge(BackendError):
    """The request's body, or a part of it, is larger than anything that Label Studio sends."""

    status = 413


class UnsupportedType(BackendError):
    """The request's body is of another media type than JSON."""

    status = 415


class TooManyGuesses(BackendError):
    """Too many wrong passwords came from one address."""

    status = 429
    retry_after = 6


class NotFound(BackendError):
    """There is no such page, project or task."""

    status = 404


class EncoderError(BackendError):
    """The encoder (`model_path`) can't be found, isn't allowed or can't be loaded."""

    status = 400


class MediaError(BackendError):
    """A task's video can't be fetched or read."""

    status = 404


class InvalidTask(MediaError):
    """The task's data can't be used until somebody changes it in Label Studio."""

    status = 400


class TransientMediaError(MediaError):
    """A task's video can't be fetched now; the same request may succeed later."""


class UnreadableVideo(MediaError):
    """The file exists, but no frame of it can be decoded."""


class NotReady(BackendError):
    """The model isn't trained yet, or the video's features are still being extracted."""

    status = 503
    retry_after = 30


class Loading(NotReady):
    """The encoder is still being fetched or loaded; the same request succeeds later."""


class UnknownJob(BackendError):
    """No job has that id."""

    status = 410


class CacheUnwritable(BackendError):
    """The cache's folder is full or read-only; cached features are still served."""

    status = 503
    retry_after = 30


class ModelsUnwritable(BackendError):
    """The folder of the models is full or read-only; the present ones still predict."""

    status = 503


class DatabaseUnavailable(BackendError):
    """The database is locked, full, read-only or unreachable; nothing was written."""

    status = 503
    retry_after = 10
