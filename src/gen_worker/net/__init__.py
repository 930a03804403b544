"""Careful communication with other machines."""
