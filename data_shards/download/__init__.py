"""Fetching monet2photo."""
