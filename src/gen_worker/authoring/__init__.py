"""The API for authors of functions, and the code that reads their signatures."""
