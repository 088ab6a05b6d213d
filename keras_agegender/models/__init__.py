"""keras_agegender."""
