"""Files that go into and come out of runs."""
