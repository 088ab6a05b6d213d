"""Synthetic faces, drawn. Nobody on them exists."""
