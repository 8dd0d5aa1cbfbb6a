"""What was measured, projected to chips that are absent: intervals with their reasons."""
