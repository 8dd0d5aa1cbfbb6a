"""Results in the formats of other tools, one module per format.

`selection` decides which rows give figures, `figures` names configurations and sums their trials
up; each format then only says how its tool wants to be given. Only usable trials (OK, WARN) become
figures, a trial counts once, and a mean comes with its 95 % interval over trials wherever the
format has a place for it.
"""
