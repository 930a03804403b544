"""An author's project: cozy.toml, its functions, their schemas, the manifest."""
