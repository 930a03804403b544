"""The dev HTTP runner: serves functions over HTTP on one machine, without a scheduler."""
