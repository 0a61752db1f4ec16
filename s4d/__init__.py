"""Static for Dynamic (S4D): facial expression recognition on photos and clips."""

__version__ = "0.2.0"
