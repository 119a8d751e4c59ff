"""How attempts and changes are recorded, how long records are kept, and when lost deliveries are counted."""

from pydantic import Field, PositiveFloat, PositiveInt

from go2hooks.settings.environment import Environment


class RecordSettings(Environment):
    record_batch_ms: PositiveInt = Field(
        50, description="attempt records are written at least this often, in milliseconds"
    )
    record_batch_rows: PositiveInt = Field(2000, description="attempt records written in one batch at most")
    attempts_retention_days: PositiveInt = Field(30, description="how long attempt records are kept, in days")
    audit_retention_days: PositiveInt = Field(365, description="how long the audit log of changes is kept, in days")
    stray_check_s: PositiveFloat = Field(
        900.0, description="how often a dispatcher counts deliveries that got lost, in seconds"
    )
    stray_grace_s: PositiveFloat = Field(
        300.0, description="how long after its due time a delivery that nobody sends counts as lost, in seconds"
    )
