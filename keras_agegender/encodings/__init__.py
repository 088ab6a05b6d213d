"""Which named outputs stand for age and gender, their targets, losses and decoding."""
