"""Who may do what: tokens of workers, keys of callers."""
