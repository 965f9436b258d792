"""Translating images of any size."""
