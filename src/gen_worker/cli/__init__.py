"""`cozyctl`: one file a verb."""
