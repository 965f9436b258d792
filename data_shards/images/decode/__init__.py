"""Decodes a file to the image that a viewer shows: opened, repaired, upright, in sRGB."""
