"""The command line: programs, exit codes, and one sentence for each mistake."""
