"""Procedural faces: who (`subjects`), doing what (`facs`), seen how (`views`), drawn by `render`.

In order: facs (actions), subject, controls, head (geometry), rays, paint, surroundings, renderer
(pixels), corpus (files, laid out as datasets are).
"""
from . import facs
from .renderer import render
from .subject import subjects, views

__all__ = ["facs", "render", "subjects", "views"]
