"""Avro schemas, shipped as package data: one record per event type, and the internal delivery."""
