"""Clips from single photos: a fitted head mesh over a depth grid, re-posed, re-lit and put before a new background."""
