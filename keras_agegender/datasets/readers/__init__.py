"""datasets/readers"""
