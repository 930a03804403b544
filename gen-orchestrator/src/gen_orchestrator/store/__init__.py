"""Durable state behind Protocols: in memory, in SQLite, in PostgreSQL."""
