"""The OpenAI API, served by functions that declare a task."""
