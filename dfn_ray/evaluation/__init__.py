"""Evaluation on Ray Data."""
