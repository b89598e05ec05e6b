"""All tasks of a project are known, not only the annotated and predicted ones, and how much each would teach."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute(
        "INSERT INTO tasks (project_id, id, data) SELECT project_id, task_id, data FROM predictions WHERE true "
        "ON CONFLICT DO NOTHING"
    )
    with op.batch_alter_table("predictions") as predictions:
        predictions.drop_column("data")
    op.add_column("tasks", sa.Column("rank", sa.BigInteger().with_variant(sa.Integer, "sqlite")))
