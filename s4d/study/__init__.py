"""Numbers from trained models and their predictions, and the figures that show them."""
