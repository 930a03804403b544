"""The worker on the wire: runs functions for a scheduler and reports on them."""
