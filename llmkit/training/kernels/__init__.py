"""Faster forms of what a model computes in training; the plain form is the reference of each."""
