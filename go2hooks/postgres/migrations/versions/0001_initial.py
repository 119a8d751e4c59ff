"""Accounts, API keys, webhooks, attempts."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Without parameters, or psycopg would take the %I of format() for one.
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})
