"""Bytes on disk by digest: fetched once, verified, counted, cleaned up."""
