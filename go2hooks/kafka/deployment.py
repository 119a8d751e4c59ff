"""One record in Kafka names the deployment (the database) that owns the topics.

Two deployments that share a cluster and a prefix would take each other's events and deliveries: a process that does not
know the webhooks would do half of the work, and record it nowhere. So the first deployment claims the topics, and a
process of another one does not start.

The topic is compacted by deployment id. The first record that was not taken back is the owner's. An empty record for an
id takes its claim back (`go2hooks topics adopt`).
"""

from typing import NamedTuple

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.sending import WaitingProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings


class Ownership(NamedTuple):
    """What the records say."""

    owner: str | None  #: None until a deployment claims the topics
    former: frozenset[str] = frozenset()  #: whose claims were taken back; their deliveries may still lie here


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
    """Claim the topics, unless another deployment has; returns who owns them. Raises UnavailableError."""
    claims = read_claims(settings)
    if claims.owner is None:
        _write(settings, deployment, b"1")
        claims = read_claims(settings)  # another may have been quicker
    return claims


def own(settings: Settings, deployment: str) -> frozenset[str]:
    """Make sure that this deployment owns the topics. Returns whose deliveries may lie there: its own, and former
    owners'.

    Raises UnavailableError when another deployment owns them, or Kafka does not answer.
    """
    owner, former = claim(settings, deployment)
    if owner != deployment:
        raise UnavailableError(explain_foreign(settings, str(owner), deployment))
    return former | {deployment}


def adopt(settings: Settings, deployment: str) -> str | None:
    """Take the topics over for this deployment. Returns the former owner. Raises UnavailableError."""
    owner = read_claims(settings).owner
    if owner == deployment:
        return None
    _write(settings, deployment, b"1")
    if owner is not None:
        _write(settings, owner, b"")
    return owner


def explain_foreign(settings: Settings, owner: str, deployment: str) -> str:
    """For an operator who started a service of another deployment, or replaced the database."""
    return (
        f"the topics {settings.kafka_prefix}.* belong to the deployment {owner}, and this database is {deployment}: "
        "set GO2HOOKS_KAFKA_PREFIX to a name of its own, or GO2HOOKS_DATABASE_URL to that deployment's database; "
        "if this database replaces that one: go2hooks topics adopt"
    )


def _write(settings: Settings, deployment: str, value: bytes) -> None:
    WaitingProducer(settings).send(TopicNames(settings.kafka_prefix).deployment, deployment.encode(), value)
