"""From an accepted run to a worker and back."""
