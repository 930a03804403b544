"""Worker images: the engines that build them, and what they built."""
