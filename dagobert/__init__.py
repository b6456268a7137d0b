"""Dagobert: a labelled text file in, a fine-tuned BERT out, and the way back."""

__version__ = "0.1.0"
