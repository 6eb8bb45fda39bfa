"""Ways to train, one file each; the directory is the registry."""
