"""Go2 Webhooks: from an event in Kafka to a signed HTTPS POST, without loss."""

__version__ = "0.2.0"
