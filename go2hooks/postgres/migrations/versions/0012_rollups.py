"""Statistics of attempts: rollups, and what each batch adds to them."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0009"


def upgrade() -> None:
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})
