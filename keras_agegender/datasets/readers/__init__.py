"""One module per source of label files."""
