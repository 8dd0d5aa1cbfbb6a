"""MLPerf's scenarios: its LoadGen sends the requests and judges the run."""
