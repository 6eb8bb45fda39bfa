"""The gates: one file each, the directory is the registry. Presets are the YAML files beside them."""
