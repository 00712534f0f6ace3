"""Recipes: their keys, with checks; what has to be there before one; those of our own models."""
