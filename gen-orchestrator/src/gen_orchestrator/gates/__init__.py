"""Checks that a release must pass before a tag moves to it."""
