"""The errors that a user can mend, each with the HTTP status that answers it.

The lowest layer: every other module may import this one, and it imports nothing. A message says what is wrong and how
to mend it; the web layer sends it as `{"error": message}`. Anything that isn't a `BackendError` is a bug (status 500).
"""

import uuid


class BackendError(Exception):
    """Base of every error with a message for the user.

    Attributes:
        status: the HTTP status of the answer.
        retry_after: seconds after which the same request may succeed, or None where repeating it can't help.
    """

    status = 500
    retry_after: int | None = None


class InternalError(BackendError):
    """A bug.

    Attributes:
        reference: stands in the answer, and in the log beside the traceback.
    """

    def __init__(self) -> None:
        self.reference = uuid.uuid4().hex[:8]
        super().__init__(f"Something went wrong here, not with the request. Reference {self.reference} in the log.")


class InvalidRequest(BackendError):
    """The request's body isn't what the route takes."""

    status = 400


class InvalidConfig(BackendError):
    """The labeling config can't work with this backend."""

    status = 400


class InvalidAnnotation(BackendError):
    """A region can't be learnt from, or there is no annotation to learn from."""

    status = 400


class Unauthorized(BackendError):
    """The request needs a user and a password."""

    status = 401


class Forbidden(BackendError):
    """The request may not do this."""

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
    """A task's video can't be had: missing, refused, outside the allowed folder."""

    status = 404


class InvalidTask(MediaError):
    """The task's data can't be used, whatever is tried: it must be changed in Label Studio."""

    status = 400


class TransientMediaError(MediaError):
    """A task's video can't be had now: the same request may succeed in a moment."""


class UnreadableVideo(MediaError):
    """The file was found, but no frame of it can be decoded."""


class NotReady(BackendError):
    """Not trained yet, or the video's features are still being extracted: ask again later."""

    status = 503
    retry_after = 30


class Loading(NotReady):
    """What predicts is being loaded: it is ready in a moment, without anybody's doing."""


class UnknownJob(BackendError):
    """No job of that id is known."""

    status = 410


class CacheUnwritable(BackendError):
    """The cache's folder is full or read-only; what is in it is served all the same."""

    status = 503
    retry_after = 30


class DatabaseUnavailable(BackendError):
    """The backend's database is locked, full, read-only or gone; nothing was written."""

    status = 503
    retry_after = 10
