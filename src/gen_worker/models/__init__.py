"""Models: from a ref to a loaded object on a device."""
