"""Operational events wait in a table until Kafka has them."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0008"


def upgrade() -> None:
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})
