"""The `agegender` command."""
