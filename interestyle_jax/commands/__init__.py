"""The commands of `interestyle`: their options, and what they do with files."""
