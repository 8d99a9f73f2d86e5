"""Duplicates: found, verified, removed around a row that stays, and certified."""
