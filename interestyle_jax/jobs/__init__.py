"""The picture job: source -> stages -> sinks, for every command that works on many pictures.

A command is a small `PictureJob` (`job.py`); `run.py` gives it progress, a skip budget, overlap,
resumption, shards and a report.
"""
