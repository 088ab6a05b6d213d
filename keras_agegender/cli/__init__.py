"""The `agegender` command: one file per verb."""
