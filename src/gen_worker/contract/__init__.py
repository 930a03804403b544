"""What crosses a process border, as Structs: runs, problems, manifests, files. Nothing here does anything."""
