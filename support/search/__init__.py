"""Exact search over vectors and words: arrays that are kept up to date, nothing built anew."""
