"""Tables of numbers, categories, counts and holes: read into rows of numbers, and written back."""
