"""Ragged rows to packed or padded batches, and back."""
