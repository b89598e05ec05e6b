"""Alembic's environment: migrations run on the connection that `ml_backend.store.database` opened and locked."""

from alembic import context

from ml_backend.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
