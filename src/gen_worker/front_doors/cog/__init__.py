"""Predictions, as cog serves them and the replicate client asks for them, over ordinary runs."""
