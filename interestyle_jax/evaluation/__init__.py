"""Evaluation: metrics, tables (Table 1, 2) and figures (Fig. 3, 10)."""
