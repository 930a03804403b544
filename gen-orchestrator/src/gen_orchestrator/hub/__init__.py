"""Releases and tags, files and models."""
