"""The OpenAI API over functions that declare a task."""
