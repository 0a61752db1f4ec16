"""Procedural faces: who (`subjects`), doing what (`facs`), seen how (`views`), drawn by `render`.

The pipeline, module by module: facs (actions), subject, controls and head (geometry), rays (and
light), paint, surroundings, renderer (pixels), corpus (files, laid out as datasets are).
"""
from . import facs
from .renderer import render
from .subject import subjects, views

__all__ = ["facs", "render", "subjects", "views"]
