"""Exported models, and the answers they give about photos."""
