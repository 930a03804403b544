"""Talking to other machines, with care."""
