"""Click models: the registry, and one module or folder per family."""
