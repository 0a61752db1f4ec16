"""Figures: one function each, a tidy table in, a Matplotlib Figure out. Nothing here loads a model."""
