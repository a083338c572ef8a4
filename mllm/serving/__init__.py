"""The model behind HTTP, in the form that OpenAI's clients speak."""
