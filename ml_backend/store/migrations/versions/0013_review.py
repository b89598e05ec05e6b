"""What of the annotations was looked at and found right."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "confirmations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("task_id", sa.BigInteger, nullable=False),
        sa.Column("control", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("start", sa.Float, nullable=False),
        sa.Column("stop", sa.Float, nullable=False),
        sa.Column("drawn", sa.JSON, nullable=False),
        sa.Column("confirmed_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_confirmations_project_id_task_id", "confirmations", ["project_id", "task_id"])
