"""Scores of parts of an image: where it is bad."""
