"""Files that go into runs."""
