"""Measuring a trained model: numbers with their uncertainty, the paper's task scores, and the checks a person makes."""
