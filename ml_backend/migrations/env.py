"""Alembic's environment: migrations run on the connection that `ml_backend.database` opened and locked."""

from alembic import context

from ml_backend.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
