"""From a ref to files in the store: what a repository offers, which files are needed, where they come from."""
