"""FantasyID: one face photo and one prompt become a video of that person."""

__version__ = "0.1.0"
