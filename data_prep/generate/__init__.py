"""Instruction data from a teacher: Evol-Instruct, Self-Instruct, Alpaca, answers and judging."""
