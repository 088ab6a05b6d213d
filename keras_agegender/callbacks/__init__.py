"""Callbacks for `fit`: loss weights that change, decoded accuracy, backups."""
