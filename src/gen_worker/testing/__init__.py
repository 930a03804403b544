"""Tools that run and test functions without a scheduler."""
