"""A project's title, and what an annotation took: its lead time, and how many events came from a prediction."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("projects", sa.Column("title", sa.String()))
    op.add_column("annotations", sa.Column("lead_time", sa.Float()))
    op.add_column("annotations", sa.Column("origins", sa.JSON()))
