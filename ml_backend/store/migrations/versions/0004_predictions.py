"""What was last predicted for each task, for the list of tasks that teach most."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("project_id", sa.String, primary_key=True),
        sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("model_version", sa.String),
        sa.Column("predicted_at", sa.DateTime, nullable=False),
    )
