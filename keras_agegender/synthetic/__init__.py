"""Synthetic faces: drawings of people who do not exist."""
