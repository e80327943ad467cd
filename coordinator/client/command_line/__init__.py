"""What each group of commands does, one module a subject. `__main__` puts them together."""
