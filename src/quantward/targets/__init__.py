"""Plan -> deployed file, one file a target; the directory is the registry."""
