"""Nouns, units and errors of the harness; standard library only."""
