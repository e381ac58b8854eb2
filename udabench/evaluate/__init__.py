"""Evaluation: inference, prediction at the label's size, confusion matrices, metrics."""
