"""Alembic runs this file; `go2hooks.postgres.migrate` hands it the connection, its transaction already begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
