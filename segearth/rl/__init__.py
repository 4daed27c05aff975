"""Reinforcement: what a written answer is worth, and what a group of answers to one question makes of that."""
