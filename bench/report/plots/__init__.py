"""Panels: three kinds of plots as inline SVG."""
