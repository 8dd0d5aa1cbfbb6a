"""Stages of a pipeline, measured one by one on one device."""
