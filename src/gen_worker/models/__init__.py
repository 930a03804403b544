"""Models: from a key to a loaded object."""
