"""What a release passes before a tag moves to it."""
