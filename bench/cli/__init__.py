"""The command line: one file per verb, thin; heavy libraries come in inside a verb."""
