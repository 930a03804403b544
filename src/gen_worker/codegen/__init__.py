"""Writes typed clients from the schemas of functions: JSON Schema to shapes, shapes to Python or TypeScript. No I/O."""
