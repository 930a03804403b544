"""Turn a model folder into the object that a parameter's annotation asks for."""
