"""HTTP in our own words: problems, event streams, files, OpenAPI."""
