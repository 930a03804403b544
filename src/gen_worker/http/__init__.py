"""HTTP building blocks: problems, event streams, files, OpenAPI."""
