"""The job that is storing a prediction in Label Studio, so that no other does so meanwhile."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("predictions", sa.Column("job_id", sa.String))
