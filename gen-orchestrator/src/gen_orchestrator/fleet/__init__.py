"""Where workers run: started, watched, replaced, stopped."""
