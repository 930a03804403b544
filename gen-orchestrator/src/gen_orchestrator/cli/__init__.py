"""Verbs that this distribution adds to cozyctl."""
