"""What must not be lost, behind Protocols: in memory, in SQLite, in PostgreSQL."""
