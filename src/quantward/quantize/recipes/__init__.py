"""One file a recipe; the directory is the registry."""
