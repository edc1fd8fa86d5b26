"""Comparison of sampling methods from the same noises: `measure_cell` measures, `write_report` reports."""
