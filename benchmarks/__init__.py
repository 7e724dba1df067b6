"""Measurements of the job: how long it takes, how much memory, beside other ways to the same rows."""
