"""Links: presets, files, texts of one or two levels, measured curves and their scores."""
