"""The image job: source -> stages -> sinks, for every command that works on many images.

A command is a small `ImageJob` (`job.py`); `run.py` gives it progress, a skip budget, overlap,
resumption, shards and a report.
"""
