"""Decisions of the control plane: values in, values out; no socket, file, clock or thread."""
