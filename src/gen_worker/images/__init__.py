"""Worker images: the engines that build them, and the built images."""
