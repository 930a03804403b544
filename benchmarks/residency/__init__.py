"""A simulation of models on workers: which to drop, where to send a request."""
