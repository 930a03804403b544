"""Releases and tags: which code a name means."""
