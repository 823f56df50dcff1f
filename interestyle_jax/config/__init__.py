"""Configs: presets, their checks, config files and smoke sizes."""
