"""What runs units of work: processes of this machine, or Ray; with either the same bytes come out."""
