"""Numbers from trained models and their predictions: tables in, tidy tables out."""
