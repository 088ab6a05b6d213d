"""From a recipe and prepared data to a run directory."""
