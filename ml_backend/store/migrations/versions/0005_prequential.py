"""A training's score on the videos that were new to it is called what the field calls it: `honest` → `prequential`."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    trainings = sa.table("trainings", sa.column("id", sa.BigInteger), sa.column("metrics", sa.JSON))
    named = sa.cast(trainings.c.metrics, sa.Text).like('%"honest"%')
    connection = op.get_bind()
    for key, metrics in connection.execute(sa.select(trainings).where(named)).all():
        renamed = {name: _renamed(of_control) for name, of_control in metrics.items()}
        connection.execute(sa.update(trainings).where(trainings.c.id == key).values(metrics=renamed))


def _renamed(metrics: Any) -> Any:
    if not isinstance(metrics, dict) or "honest" not in metrics:
        return metrics
    return {"prequential" if name == "honest" else name: value for name, value in metrics.items()}
