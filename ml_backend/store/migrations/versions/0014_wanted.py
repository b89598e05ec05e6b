"""A training may wait for several submissions."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    column = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("projects", sa.Column("wanted_revision", column, nullable=False, server_default="0"))
    op.execute("UPDATE projects SET wanted_revision = revision")
    with op.batch_alter_table("projects") as projects:
        projects.alter_column("wanted_revision", server_default=None)
