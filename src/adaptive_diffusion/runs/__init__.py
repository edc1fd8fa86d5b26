"""What the programs do, one file per kind of run."""
