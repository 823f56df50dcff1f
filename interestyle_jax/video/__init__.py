"""Films: their frames read and written, faces followed over time, and what flickers measured."""
