"""Metrics of predictions: arrays, Keras metrics and intervals."""
