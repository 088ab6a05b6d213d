"""Several runs at once: reproduce, compare, quickstart."""
