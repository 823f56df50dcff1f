"""Photographs: faces and landmarks, FFHQ alignment, and paste-back into the photograph."""
