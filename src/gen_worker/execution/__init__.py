"""Calls a function: payload, files, models, threads, events, outcome."""
