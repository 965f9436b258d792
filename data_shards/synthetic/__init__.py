"""Procedural landscapes, seen two ways: `photo` takes a picture of a scene, `paint` paints it.

Every function draws from the generator handed to it and nothing else, so that a seed fixes every pixel.
"""
