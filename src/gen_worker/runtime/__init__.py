"""The worker: runs functions and reports on them."""
