"""Evaluation: what a model answered against what is true, as numbers and pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
