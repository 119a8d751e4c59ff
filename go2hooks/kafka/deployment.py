"""Whose topics these are: one record in Kafka names the database (the deployment) that they belong to.

Two deployments that share a cluster and a prefix would take each other's events and deliveries: half of the work would
be done by a process that does not know the webhooks, and recorded nowhere. So the first one claims the topics, and who
belongs to another database does not begin.

The topic is compacted by deployment id. The record that came first and was not taken back is the owner's; a claim is
taken back by an empty record for its id (`go2hooks topics adopt`).
"""

from typing import NamedTuple

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.sending import WaitingProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings


class Ownership(NamedTuple):
    """What the record says."""

    owner: str | None  #: None until somebody claims the topics
    former: frozenset[str] = frozenset()  #: whose claims were taken back: their deliveries may still lie here


def read_claims(settings: Settings) -> Ownership:
    """Raises UnavailableError."""
    standing: dict[str, bool] = {}
    with LogReader(settings) as reader:
        keys = reader.partitions([TopicNames(settings.kafka_prefix).deployment])
        starts, ends = reader.starts(keys), reader.ends(keys)
        for message in reader.read([OffsetRange(key, starts[key], ends[key]) for key in keys]):
            name = (message.key() or b"").decode("utf-8", "replace")
            is_claim = bool(message.value())
            standing[name] = is_claim and standing.get(name, True)
    owners = [name for name, stands in standing.items() if stands]
    return Ownership(owners[0] if owners else None, frozenset(name for name, stands in standing.items() if not stands))


def claim(settings: Settings, deployment: str) -> Ownership:
    """Claim the topics, unless somebody has; whose they are then. Raises UnavailableError."""
    claims = read_claims(settings)
    if claims.owner is None:
        _write(settings, deployment, b"1")
        claims = read_claims(settings)  # another may have been quicker
    return claims


def own(settings: Settings, deployment: str) -> frozenset[str]:
    """Make sure that the topics are this deployment's; whose deliveries may lie there: its own, and those of former owners.

    Raises UnavailableError when they are another's, or Kafka does not say.
    """
    owner, former = claim(settings, deployment)
    if owner != deployment:
        raise UnavailableError(explain_foreign(settings, str(owner), deployment))
    return former | {deployment}


def adopt(settings: Settings, deployment: str) -> str | None:
    """Take the topics over for this deployment. Returns whose they were. Raises UnavailableError."""
    owner = read_claims(settings).owner
    if owner == deployment:
        return None
    _write(settings, deployment, b"1")
    if owner is not None:
        _write(settings, owner, b"")
    return owner


def explain_foreign(settings: Settings, owner: str, deployment: str) -> str:
    """For whoever started a service there, or an operator who replaced the database."""
    return (
        f"the topics {settings.kafka_prefix}.* belong to the deployment {owner}, and this database is {deployment}: "
        "set GO2HOOKS_KAFKA_PREFIX to a name of its own, or GO2HOOKS_DATABASE_URL to that deployment's database; "
        "if this database replaces that one: go2hooks topics adopt"
    )


def _write(settings: Settings, deployment: str, value: bytes) -> None:
    WaitingProducer(settings).send(TopicNames(settings.kafka_prefix).deployment, deployment.encode(), value)
