"""Figures: a function each, a tidy table in, a Matplotlib figure out; no model is loaded."""
