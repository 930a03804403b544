"""Predictions in the protocol of cog and the replicate client, served by ordinary runs."""
