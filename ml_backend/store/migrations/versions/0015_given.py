"""How Label Studio got a prediction, so that it isn't stored twice."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    for name in ("answered_at", "stored_at"):
        op.add_column("predictions", sa.Column(name, sa.DateTime))
