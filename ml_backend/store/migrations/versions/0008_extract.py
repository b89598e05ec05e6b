"""A job that extracts features is of the kind "extract"; it was called "prepare"."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    jobs = sa.table("jobs", sa.column("kind"), sa.column("key"))
    for old, new in (("prepare", "extract"), ("prepare_many", "extract_many")):
        key = sa.func.replace(jobs.c.key, f"{old}:", f"{new}:")
        op.execute(jobs.update().where(jobs.c.kind == old).values(kind=new, key=key))
