"""Procedural faces: who (`subjects`), doing what (`facs`), seen how (`views`), drawn by `render`.

`corpus` writes them as datasets.
"""
from . import facs
from .plan import FacesError
from .renderer import render
from .subject import subjects, views

__all__ = ["FacesError", "facs", "render", "subjects", "views"]
