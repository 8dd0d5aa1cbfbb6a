"""Tests that claims can name, by name: each declares what it needs and computes cases."""
