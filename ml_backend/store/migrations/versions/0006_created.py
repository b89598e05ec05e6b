"""When Label Studio created a project: two Label Studios may give two projects one number."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("projects", sa.Column("created", sa.BigInteger))
