"""Streams of bytes between worker and scheduler: gRPC, and in memory for tests."""
