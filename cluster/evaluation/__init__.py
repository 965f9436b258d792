"""Held-out images: distances, and pictures for people."""
