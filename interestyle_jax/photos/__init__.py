"""Photographs: face detectors, landmarks, alignment, and paste-back into the photograph."""
