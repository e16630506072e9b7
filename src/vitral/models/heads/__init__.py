"""Heads of dense tasks: from a backbone's maps to a class for each pixel, or to objects."""
