"""Inference as users meet it: requests that come when they come, and wait for one another.

A served run is: a schedule (`arrivals`, drawn before the run) -> whatever serves it and returns a
`list[tally.Served]`, one for each request of the schedule, all times in seconds from the start of
the run -> `columns.columns_of`, which makes the columns of a row and its reasons. Meanwhile each
finished request goes through a `run_report.Report` to the parent, which shows the share that held
the limits and keeps the requests beside the rows, also those of a run that is interrupted.

`live` serves with the engine of the trial, in real or simulated time; whatever else serves (an
`endpoint`, a continuous batcher) needs no more than these four. `served_trial` is the process.
"""
