"""Tables with numbers, categories, counts and missing values: encode them and write them."""
