"""Structs that cross a process border: runs, problems, manifests, files. No behaviour."""
