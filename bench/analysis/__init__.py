"""Statistics over rows: intervals, comparison, gap; torch-free."""
