"""Figures: one function each, a tidy table in, a Matplotlib figure out. Nothing here loads a model."""
