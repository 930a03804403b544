"""Generated protobuf stubs of the worker and frontend protocols; regenerate with scripts/protos."""
