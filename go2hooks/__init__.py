"""Go2 Webhooks: from an event in Kafka to a signed HTTPS POST, without loss."""

from go2hooks import build as build  # first: it decides what all later imports find

__version__ = "0.2.0"
