"""The protocol between worker and scheduler: messages, their encoding, and both sides' sessions. No I/O."""
