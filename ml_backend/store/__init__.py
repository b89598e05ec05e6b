"""The backend's state: projects, their annotations, trainings, published models and jobs, in one SQL database.

A project has a *data revision* that every change of its annotations or labeling config raises, and the revision that
its model was last trained at. A model is behind its data where the two differ, so that a lost message loses nothing.
"""

from ml_backend.store.annotations import Annotations
from ml_backend.store.confirmations import Confirmations
from ml_backend.store.jobs import JobRows
from ml_backend.store.models import Models
from ml_backend.store.summaries import Summaries
from ml_backend.store.tasks import Tasks
from ml_backend.store.values import Values


class Store(Annotations, Confirmations, JobRows, Models, Summaries, Tasks, Values):
    """The state in one database; each base class holds the methods of one kind of row.

    Arguments and errors of the constructor are those of `Database`. Any method raises `DatabaseUnavailable` where the
    database can't be read or written; then nothing was written.
    """
