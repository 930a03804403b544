"""Converts projects written for cog, LitServe, BentoML or RunPod into projects of ours. Their code is read, never run."""
