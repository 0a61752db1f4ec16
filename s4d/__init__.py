"""Static for Dynamic (S4D): facial expression recognition on photos and clips. Importing the package registers its models with timm."""
from . import models

__all__ = ["models"]
