"""Protocols that other programs speak, over ordinary runs."""
