"""Projects that were written for cog, LitServe, BentoML or RunPod, as projects of ours. Their code is read, never run."""
