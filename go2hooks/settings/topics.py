"""How `go2hooks topics` creates topics, and the schemas for their messages."""

from pathlib import Path

from pydantic import Field, PositiveInt

from go2hooks.settings.environment import CommaSeparated, Environment


class TopicSettings(Environment):
    topic_partitions: PositiveInt = Field(8, description="partitions of each topic that `go2hooks topics` creates")
    topic_replication: int = Field(
        -1, ge=-1, le=32767, description="replicas of each topic; -1 takes the broker's default"
    )
    topic_config_left_out: CommaSeparated[str] = Field(
        (),
        description="topic settings that are neither set nor checked, as where a policy refuses them, comma separated",
    )
    log_retention_days: PositiveInt = Field(
        7, description="how long events, deliveries and retries stay in Kafka, in days"
    )
    schema_dir: Path | None = Field(
        None, description="folder of further .avsc files: schemas of producers that are newer than this version"
    )
