"""Judging a trained model: the bound on real text, zero-shot data sets, and what it writes."""
