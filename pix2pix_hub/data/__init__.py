"""Pairs of images: where they come from and what happens to them on their way to the networks."""
