"""One file a published data set; the directory is the registry. Names that begin with `_` are shared, not sets."""
