"""Catalogue of chips and links with their sources, and export rules; torch-free."""
