"""What authors write functions with, and how their signatures are read."""
