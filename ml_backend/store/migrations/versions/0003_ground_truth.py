"""Whether an annotation is a task's ground truth."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("annotations", sa.Column("ground_truth", sa.Boolean, nullable=False, server_default=sa.false()))
