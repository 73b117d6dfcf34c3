"""Tiny random models of many families, each compared with brute force."""
