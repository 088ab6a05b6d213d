"""Evaluation: what a model answered against what is true, as numbers and pictures."""
