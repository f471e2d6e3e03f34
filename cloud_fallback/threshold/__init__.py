"""Choosing the confidence below which the cloud is asked."""
