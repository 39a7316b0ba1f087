"""From video files to clips of one person: measured once, then kept or dropped by rules."""
