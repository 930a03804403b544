"""Calling a function: payload, files, models, threads, events, the end."""
